"""Answers to text queries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import ModelError
from imagedex.core.ids import image_id_of
from imagedex.embedding.interfaces import TextEncoder
from imagedex.search.cache import LruCache
from imagedex.search.interfaces import QueryAnswer, Result
from imagedex.search.live import Found, LiveIndex, Serving, Wanted
from imagedex.search.validation import require_valid_query
from imagedex.segments import Hits, IndexFiles, OpenGeneration

_CHECK_TEXT = "a photo"


@dataclass(frozen=True, slots=True, eq=False)
class _EncodedText:
    vector: NDArray[np.float32]  # Shape (dim,), of unit length.
    is_cut: bool


class QueryService:
    """Answers queries over the indexes of one embedding model. Safe to call from several threads.

    A query takes one generation and keeps it to its end; it waits for no refresh, except for
    the first one of its index. Queries that come together are encoded together and searched
    together.
    """

    def __init__(
        self,
        *,
        files_of: Callable[[Path], IndexFiles],
        encoder: TextEncoder,
        model_name: str,
        fingerprint: str,
        dim: int,
        cache_entries: int,
    ) -> None:
        """Take what opens an index prefix and what encodes texts.

        ``cache_entries`` bounds the answers kept for each index, and the text vectors kept.
        """
        self._files_of = files_of
        self._encoder = encoder
        self._model_name = model_name
        self._fingerprint = fingerprint
        self._dim = dim
        self._cache_entries = cache_entries
        self._texts = LruCache[str, _EncodedText](
            max_entries=cache_entries, max_weight=cache_entries
        )
        self._live: dict[Path, LiveIndex] = {}
        self._live_lock = threading.Lock()

    def query(self, index_prefix: Path, text: str, top_k: int) -> QueryAnswer:
        """Answer a text query from the generation that is served when it begins.

        Raises InvalidRequest; FingerprintMismatch, CorruptIndex, StorageError when the index
        is used for the first time and cannot be opened; ModelError.
        """
        started = time.perf_counter()
        require_valid_query(text, top_k)
        serving = self._serving(index_prefix)
        if serving is None:
            return self._answer(text, None, (), False, started)
        key = (text, top_k)
        known = serving.answers.get(key)
        if known is not None:
            elapsed = time.perf_counter() - started
            return replace(known, query_time_seconds=elapsed, is_cached=True)
        found = serving.finding.run(Wanted(text, top_k))
        answer = self._answer(text, serving, _ranked(found.hits), found.is_text_cut, started)
        serving.answers.put(key, answer, weight=1 + len(answer.results))
        return answer

    def refresh(self, index_prefix: Path) -> int:
        """Serve the current generation from now on, and return its number (0 for no index).

        Queries that are under way end on the generation they began with. When it cannot be
        opened, this raises (FingerprintMismatch, CorruptIndex, StorageError) and the
        generation served before goes on answering.
        """
        serving = self._live_index(index_prefix).refresh()
        return 0 if serving is None else serving.generation.manifest.generation

    def forget(self, index_prefix: Path) -> None:
        """Let go of what is open of an index, which another service has taken over."""
        with self._live_lock:
            self._live.pop(index_prefix, None)

    def warm(self) -> None:
        """Encode a text, so that no query waits for the model to be loaded. Raises ModelError."""
        self._encode([_CHECK_TEXT])

    def check(self, index_prefix: Path) -> int:
        """Encode a text and search with it, past all caches; return the generation searched.

        Raises what kept it from being done. An index without images passes;
        it is generation 0 while nothing was ever published.
        """
        (encoded,) = self._encode([_CHECK_TEXT])
        serving = self._serving(index_prefix)
        if serving is None:
            return 0
        manifest = serving.generation.manifest
        (hits,) = serving.generation.search(encoded.vector[np.newaxis], [1])
        found = len(hits.image_paths)
        if found != min(1, manifest.images):
            raise ModelError(
                f"A search of generation {manifest.generation} with {manifest.images} images "
                f"found {found}; start the server again; if that is no help, restore the index "
                "from a copy, or index again under another prefix."
            )
        return manifest.generation

    def _live_index(self, index_prefix: Path) -> LiveIndex:
        with self._live_lock:
            live = self._live.get(index_prefix)
            if live is None:
                live = self._live[index_prefix] = LiveIndex(
                    self._files_of(index_prefix),
                    find=self._find,
                    fingerprint=self._fingerprint,
                    model_name=self._model_name,
                    cache_entries=self._cache_entries,
                )
            return live

    def _serving(self, index_prefix: Path) -> Serving | None:
        live = self._live_index(index_prefix)
        serving = live.serving
        if serving is None:
            serving = live.refresh()
        if serving is None:
            # Whoever asks for many places without an index must not fill the memory.
            with self._live_lock:
                if self._live.get(index_prefix) is live:
                    del self._live[index_prefix]
        return serving

    def _find(self, generation: OpenGeneration, wanted: Sequence[Wanted]) -> list[Found]:
        """Answer queries that came together: one run of the encoder, one pass over the vectors.

        Each of the two uses all cores, so that nothing is gained by doing them side by side.
        """
        texts = {query.text: self._texts.get(query.text) for query in wanted}
        new = [text for text, encoded in texts.items() if encoded is None]
        for text, fresh in zip(new, self._encode(new) if new else [], strict=True):
            self._texts.put(text, fresh)
            texts[text] = fresh
        encodeds = [encoded for query in wanted if (encoded := texts[query.text]) is not None]
        vectors = np.stack([encoded.vector for encoded in encodeds])
        hits = generation.search(vectors, [query.top_k for query in wanted])
        return [Found(one, encoded.is_cut) for one, encoded in zip(hits, encodeds, strict=True)]

    def _encode(self, texts: list[str]) -> list[_EncodedText]:
        encoded = self._encoder.encode_texts(texts)
        expected = (len(texts), self._dim)
        if encoded.vectors.shape != expected or not np.isfinite(encoded.vectors).all():
            raise ModelError(
                f"The model {self._model_name!r} gave vectors of shape {encoded.vectors.shape}, "
                f"or with values that are not finite, expected {expected}; set the model up again."
            )
        # Copies, so that the cache keeps single vectors and not the encoder's whole batch.
        return [
            _EncodedText(vector.astype(np.float32, copy=True), is_cut)
            for vector, is_cut in zip(encoded.vectors, encoded.is_cut, strict=True)
        ]

    def _answer(
        self,
        text: str,
        serving: Serving | None,
        results: tuple[Result, ...],
        is_text_cut: bool,
        started: float,
    ) -> QueryAnswer:
        manifest = serving.generation.manifest if serving is not None else None
        return QueryAnswer(
            query=text,
            results=results,
            query_time_seconds=time.perf_counter() - started,
            total_images=manifest.images if manifest else 0,
            model_name=self._model_name,
            generation=manifest.generation if manifest else 0,
            is_cached=False,
            is_text_cut=is_text_cut,
        )


def _ranked(hits: Hits) -> tuple[Result, ...]:
    # Rounding can take the product of two unit vectors a little beyond 1.
    scores = np.clip(hits.scores, -1.0, 1.0).tolist()
    return tuple(
        Result(rank=rank, score=score, image_path=path, image_id=image_id_of(path))
        for rank, (score, path) in enumerate(zip(scores, hits.image_paths, strict=True), start=1)
    )
