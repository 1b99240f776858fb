"""Generations opened for searching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from imagedex.core.errors import CorruptIndex
from imagedex.core.ids import image_id_of
from imagedex.segments._faiss import FaissFile
from imagedex.segments._faiss_ivf import IvfFile
from imagedex.segments._parquet import FactColumns, PathColumn, read_images, read_paths
from imagedex.segments.approximate import ApproximateSearch
from imagedex.segments.exact import ExactSearch, ScoredRows
from imagedex.segments.filters import ImageFilter
from imagedex.segments.integrity import require_intact
from imagedex.segments.interfaces import Hits
from imagedex.segments.records import Manifest, SegmentEntry
from imagedex.segments.selections import SegmentRows
from imagedex.segments.tombstones import Tombstones
from imagedex.segments.verification import Verification

_log = structlog.get_logger(__name__)

_NO_HITS = Hits(
    np.empty(0, dtype=np.float32), (), places=np.empty((0, 2), dtype=np.int64), matching=0
)


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """A segment whose files were found intact. Shared by all generations that list it."""

    entry: SegmentEntry
    paths: PathColumn
    search: ExactSearch | ApproximateSearch
    by_facts: SegmentRows
    is_made_good: bool  # Its vectors are a copy in memory, in the place of a damaged file.


@dataclass(frozen=True, slots=True)
class _LiveSegment:
    segment: OpenSegment
    gone: NDArray[np.int64]  # Rows that do not count, ascending.

    def best(
        self,
        queries: NDArray[np.float32],
        ks: Sequence[int],
        image_filter: ImageFilter | None,
    ) -> tuple[list[ScoredRows], int]:
        """Return the best rows that count for each query, and how many rows count."""
        if image_filter is None:
            found = self.segment.search.best(queries, ks, self.gone)
            return found, self.segment.entry.rows - len(self.gone)
        selection = self.segment.by_facts.selected(image_filter, self.gone)
        if selection.count == 0:
            return [], 0
        return self.segment.search.best_selected(queries, ks, selection), selection.count


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows that one query found in one segment."""

    place: int  # Of the segment among those that are open.
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


class DirectoryGeneration:
    """One generation, opened for searching. Immutable; safe to call from several threads."""

    def __init__(
        self, manifest: Manifest, segments: tuple[OpenSegment, ...], tombstones: Tombstones
    ) -> None:
        self._manifest = manifest
        self._segments = {segment.entry.number: segment for segment in segments}
        self._live = tuple(
            live for live in (_live_part(s, tombstones) for s in segments) if live is not None
        )

    @property
    def manifest(self) -> Manifest:
        """What is open."""
        return self._manifest

    def segment(self, entry: SegmentEntry) -> OpenSegment | None:
        """Return this very segment if it is open here."""
        segment = self._segments.get(entry.number)
        return segment if segment is not None and segment.entry == entry else None

    def search(
        self,
        vectors: NDArray[np.float32],
        ks: Sequence[int],
        filters: Sequence[ImageFilter | None] | None = None,
    ) -> list[Hits]:
        """Return for each unit vector its best ``k`` rows (fewer when fewer count).

        ``vectors`` has shape (n, dim), with one ``k`` and one filter each, if there are any.
        Scores are the exact inner products rounded to float32, equal ones ordered by path, and
        the same whatever is asked beside. Raises ValueError for another shape, type or value;
        with filters InvalidRequest, CorruptIndex, StorageError.
        """
        dim = self._manifest.dim
        expected = (len(ks), dim)
        if (
            vectors.shape != expected
            or vectors.dtype != np.float32
            or not np.isfinite(vectors).all()
        ):
            raise ValueError(
                f"Query vectors are {vectors.dtype} of shape {vectors.shape}, expected finite "
                f"float32 of shape {expected}."
            )
        if min(ks, default=1) < 1:
            raise ValueError(f"k is {min(ks)}, expected at least 1.")
        if filters is None:
            return self._search(vectors, ks, None)
        hits: dict[int, Hits] = {}
        for image_filter in dict.fromkeys(filters):
            mine = [i for i, other in enumerate(filters) if other == image_filter]
            found = self._search(vectors[mine], [ks[i] for i in mine], image_filter)
            hits.update(zip(mine, found, strict=True))
        return [hits[i] for i in range(len(ks))]

    def vectors(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of hits, which have their places: float32, shape (n_found, dim)."""
        vectors = np.empty((len(places), self._manifest.dim), dtype=np.float32)
        for owner in np.unique(places[:, 0]):
            mine = places[:, 0] == owner
            vectors[mine] = self._live[owner].segment.search.take(places[mine, 1])
        return vectors

    def prepare(self, image_filter: ImageFilter) -> None:
        """Find out which images a filter allows, so that a search with it need not."""
        for part in self._live:
            part.segment.by_facts.selected(image_filter, part.gone)

    def prepare_ids(self) -> None:
        """Make what finds images by their ids, so that nobody waits for it: a second a million."""
        for part in self._live:
            part.segment.by_facts.of_images([image_id_of("/")])

    def path_of(self, image_id: str) -> str | None:
        """Return the path of an image, None when it is not here."""
        for segment, rows in self._places_of(image_id):
            return segment.paths.take(rows[:1])[0]
        return None

    def vector_of(self, image_id: str) -> NDArray[np.float32] | None:
        """Return the vector of an image, float32 of shape (dim,), None when it is not here."""
        for segment, rows in self._places_of(image_id):
            vector: NDArray[np.float32] = segment.search.take(rows[:1])[0]
            return vector
        return None

    def _places_of(self, image_id: str) -> Iterator[tuple[OpenSegment, NDArray[np.int64]]]:
        """Give segments that have an image, with its rows that count."""
        for part in self._live:
            rows = part.segment.by_facts.of_images([image_id])
            live = rows[~np.isin(rows, part.gone)]
            if len(live):
                yield part.segment, live

    def _search(
        self,
        vectors: NDArray[np.float32],
        ks: Sequence[int],
        image_filter: ImageFilter | None,
    ) -> list[Hits]:
        found: list[list[_Found]] = [[] for _ in ks]
        matching = 0
        for place, part in enumerate(self._live):
            best, count = part.best(vectors, ks, image_filter)
            matching += count
            for parts, one in zip(found, best, strict=False):  # None of a part without such rows.
                parts.append(_Found(place, one.rows, one.scores))
        return [self._best(parts, k, matching) for parts, k in zip(found, ks, strict=True)]

    def _best(self, parts: list[_Found], k: int, matching: int) -> Hits:
        if not parts:
            return _NO_HITS
        owners = np.concatenate([np.full(len(part.rows), part.place) for part in parts])
        rows = np.concatenate([part.rows for part in parts])
        scores = np.concatenate([part.scores for part in parts])
        if len(scores) > k:
            # All that equal the k-th stay: which of them are in is for their paths to decide.
            keep = scores >= np.partition(scores, -k)[-k]
            owners, rows, scores = owners[keep], rows[keep], scores[keep]
        paths = np.empty(len(rows), dtype=object)
        for place in np.unique(owners):
            mine = owners == place
            paths[mine] = self._live[place].segment.paths.take(rows[mine])
        order = sorted(range(len(rows)), key=lambda i: (-scores[i], paths[i]))[:k]
        places = np.stack([owners[order], rows[order]], axis=1)
        return Hits(scores[order], tuple(paths[order]), places, matching)


def open_segment(
    index_prefix: Path, entry: SegmentEntry, files: Verification, *, dim: int
) -> OpenSegment:
    """Open a segment after looking at its files, as far as ``files`` does before it verifies them.

    The Parquet file must be intact (CorruptIndex, StorageError); a Faiss file that is not is
    made good in memory from the Parquet file, and inverted lists that are not are left out, each
    with a warning in the log.
    """
    parquet = files.require(entry.parquet)
    paths = read_paths(parquet)
    if len(paths) != entry.rows:
        raise CorruptIndex(
            f"Segment {entry.number} has {len(paths)} rows but its manifest expects {entry.rows}; "
            "restore it from a copy of the index."
        )
    is_made_good = False
    if entry.faiss is None:
        faiss = _from_parquet(parquet, entry, dim=dim)
    else:
        try:
            faiss = FaissFile.open(files.require(entry.faiss), rows=entry.rows, dim=dim)
        except CorruptIndex as error:
            _log.warning("faiss_file_rebuilt_in_memory", segment=entry.number, reason=str(error))
            faiss = _from_parquet(parquet, entry, dim=dim)
            is_made_good = True
    search = _search_of(index_prefix, entry, faiss, dim=dim)
    by_facts = SegmentRows(paths, FactColumns(parquet))
    return OpenSegment(entry, paths, search, by_facts, is_made_good)


def _from_parquet(parquet: Path, entry: SegmentEntry, *, dim: int) -> FaissFile:
    """Read the vectors of a segment into memory."""
    images = read_images(parquet)
    if images.dim != dim:
        raise CorruptIndex(
            f"Segment {entry.number} has vectors of length {images.dim} but its manifest "
            f"expects {dim}; restore it from a copy of the index."
        )
    return FaissFile.build(images.vectors())


def _search_of(
    index_prefix: Path, entry: SegmentEntry, faiss: FaissFile, *, dim: int
) -> ExactSearch | ApproximateSearch:
    if entry.ivf is None:
        return ExactSearch(faiss)
    try:
        # Faiss believes what this file says of itself, so it is compared whole, however large.
        path = require_intact(index_prefix, entry.ivf.file)
        lists = IvfFile.open(path, rows=entry.rows, dim=dim)
    except CorruptIndex as error:
        _log.warning("inverted_lists_left_out", segment=entry.number, reason=str(error))
        return ExactSearch(faiss)
    return ApproximateSearch(lists, entry.ivf.depths, ExactSearch(faiss, with_copy=False))


def _live_part(segment: OpenSegment, tombstones: Tombstones) -> _LiveSegment | None:
    """Return a segment with the rows of it that do not count, None when none does."""
    gone = tombstones.rows_of(segment.entry.number)
    return None if len(gone) == segment.entry.rows else _LiveSegment(segment, gone)
