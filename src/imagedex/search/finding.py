"""What a generation holds for queries that came together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagedex.core.cache import LruCache
from imagedex.core.errors import InvalidRequest, ModelError, NotFound
from imagedex.core.ids import image_id_of
from imagedex.embedding.interfaces import TextEncoder
from imagedex.search.composing import composed
from imagedex.search.query import (
    PLAIN_RESULTS,
    PLAIN_TERMS,
    ImageTerm,
    PictureTerm,
    Query,
    TextTerm,
)
from imagedex.segments import Hits, ImageFilter, OpenGeneration


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """A term whose vector is known."""

    vector: NDArray[np.float32]  # Shape (dim,), of unit length.
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A query to one generation that waits for its turn."""

    terms: tuple[TextTerm | Direction, ...]
    k: int
    image_filter: ImageFilter | None = None
    min_score: float | None = None
    left_out: frozenset[str] = frozenset()  # Ids of images that are not looked for.

    @property
    def is_plain(self) -> bool:
        """Whether it costs no more than others, with which it can be answered."""
        return (
            self.image_filter is None and len(self.terms) <= PLAIN_TERMS and self.k <= PLAIN_RESULTS
        )


@dataclass(frozen=True, slots=True)
class Found:
    """What a generation holds for it."""

    hits: Hits
    is_text_cut: bool
    is_last: bool  # Nothing comes after these, however deep the search.


@dataclass(frozen=True, slots=True, eq=False)
class EncodedText:
    """The vector of a text."""

    vector: NDArray[np.float32]  # Shape (dim,), of unit length.
    is_cut: bool


class Finder:
    """Answers queries from open generations. Safe to call from several threads."""

    def __init__(
        self, encoder: TextEncoder, *, model_name: str, dim: int, cache_entries: int
    ) -> None:
        """Take what encodes texts; the vectors of so many of them are remembered."""
        self._encoder = encoder
        self._model_name = model_name
        self._dim = dim
        self._texts = LruCache[str, EncodedText](
            max_entries=cache_entries, max_weight=cache_entries
        )

    def prepare(self, generation: OpenGeneration, query: Query) -> Wanted:
        """Do what a query needs for itself alone, so that it keeps no other one waiting.

        Raises NotFound for an image that is not in the generation; InvalidRequest for a filter
        that cannot be understood; CorruptIndex, StorageError.
        """
        if query.image_filter is not None:
            generation.prepare(query.image_filter)
        return Wanted(
            terms=tuple(
                term if isinstance(term, TextTerm) else _direction(generation, term)
                for term in query.terms
            ),
            k=query.top_k,
            image_filter=query.image_filter,
            min_score=query.min_score,
            # Whoever asks for more like an image has that one already.
            left_out=frozenset(t.image_id for t in query.terms if isinstance(t, ImageTerm)),
        )

    def find(
        self, generation: OpenGeneration, wanted: Sequence[Wanted]
    ) -> list[Found | InvalidRequest]:
        """Answer queries that came together: one run of the encoder, one pass over the vectors.

        Each of the two uses all cores, so that nothing is gained by doing them side by side. A
        query whose terms cancel each other out gets the error, and the others their answers.
        """
        texts = self._encoded(
            [term.text for query in wanted for term in query.terms if isinstance(term, TextTerm)]
        )
        directions = [_vector(query, texts) for query in wanted]
        good = [
            (query, vector)
            for query, vector in zip(wanted, directions, strict=True)
            if not isinstance(vector, InvalidRequest)
        ]
        hits = iter(self._searched(generation, good))
        return [
            vector
            if isinstance(vector, InvalidRequest)
            else _answered(query, next(hits), is_text_cut=_is_cut(query, texts))
            for query, vector in zip(wanted, directions, strict=True)
        ]

    def _searched(
        self, generation: OpenGeneration, asked: Sequence[tuple[Wanted, NDArray[np.float32]]]
    ) -> list[Hits]:
        if not asked:
            return []
        ks = [query.k + len(query.left_out) for query, _ in asked]
        filters = [query.image_filter for query, _ in asked]
        has_filter = any(image_filter is not None for image_filter in filters)
        vectors = np.stack([vector for _, vector in asked])
        return generation.search(vectors, ks, filters if has_filter else None)

    def encode(self, texts: list[str]) -> list[EncodedText]:
        """Encode texts anew. Raises ModelError."""
        encoded = self._encoder.encode_texts(texts)
        expected = (len(texts), self._dim)
        if encoded.vectors.shape != expected or not np.isfinite(encoded.vectors).all():
            raise ModelError(
                f"The model {self._model_name!r} gave vectors of shape {encoded.vectors.shape}, "
                f"or with values that are not finite, expected {expected}; set the model up again."
            )
        # Copies, so that the cache keeps single vectors and not the encoder's whole batch.
        return [
            EncodedText(vector.astype(np.float32, copy=True), is_cut)
            for vector, is_cut in zip(encoded.vectors, encoded.is_cut, strict=True)
        ]

    def _encoded(self, texts: Sequence[str]) -> dict[str, EncodedText]:
        known = {text: self._texts.get(text) for text in texts}
        new = [text for text, encoded in known.items() if encoded is None]
        for text, fresh in zip(new, self.encode(new) if new else [], strict=True):
            self._texts.put(text, fresh)
            known[text] = fresh
        return {text: encoded for text, encoded in known.items() if encoded is not None}


def _direction(generation: OpenGeneration, term: ImageTerm | PictureTerm) -> Direction:
    if isinstance(term, PictureTerm):
        return Direction(np.frombuffer(term.vector, dtype=np.float32), term.weight)
    vector = generation.vector_of(term.image_id)
    if vector is None:
        raise NotFound(f"There is no image {term.image_id!r} in this index, or no longer.")
    return Direction(vector, term.weight)


def _vector(query: Wanted, texts: dict[str, EncodedText]) -> NDArray[np.float32] | InvalidRequest:
    vectors = [
        texts[term.text].vector if isinstance(term, TextTerm) else term.vector
        for term in query.terms
    ]
    try:
        return composed(vectors, [term.weight for term in query.terms])
    except InvalidRequest as error:
        return error


def _is_cut(query: Wanted, texts: dict[str, EncodedText]) -> bool:
    return any(texts[term.text].is_cut for term in query.terms if isinstance(term, TextTerm))


def _answered(query: Wanted, hits: Hits, *, is_text_cut: bool) -> Found:
    """Leave out what the query does not want; ``hits`` has as many more as that can be."""
    is_last = hits.matching <= query.k + len(query.left_out)
    if query.left_out:
        hits = hits.only(
            [i for i, p in enumerate(hits.image_paths) if image_id_of(p) not in query.left_out]
        )
    if len(hits.image_paths) > query.k:
        hits = hits.only(range(query.k))
        is_last = False
    if query.min_score is not None:
        good = int(np.count_nonzero(hits.scores.astype(np.float64) >= query.min_score))
        if good < len(hits.image_paths):
            hits = hits.only(range(good))
            is_last = True
    return Found(hits, is_text_cut, is_last)
