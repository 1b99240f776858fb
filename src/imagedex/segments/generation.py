"""Generations opened for searching."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from imagedex.core.errors import CorruptIndex
from imagedex.segments._faiss import SearchStructure, pack_live
from imagedex.segments._parquet import PathColumn, read_images, read_paths
from imagedex.segments.integrity import require_intact
from imagedex.segments.interfaces import Hits
from imagedex.segments.records import Manifest, SegmentEntry
from imagedex.segments.tombstones import Tombstones

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OpenSegment:
    """A segment whose files were found intact. Shared by all generations that list it."""

    entry: SegmentEntry
    paths: PathColumn
    structure: SearchStructure


@dataclass(frozen=True, slots=True)
class _LiveSegment:
    segment: OpenSegment
    live: NDArray[np.uint8] | None  # Bitmap of the rows that count; None when all do.


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

    def search(self, vector: NDArray[np.float32], k: int) -> Hits:
        """Return the best ``k`` rows (fewer when the index is smaller) for one unit vector.

        ``vector`` has shape (dim,). Scores are the exact inner products rounded to float32,
        equal ones ordered by path. Raises ValueError for another shape, type or value.
        """
        dim = self._manifest.dim
        if vector.shape != (dim,) or vector.dtype != np.float32 or not np.isfinite(vector).all():
            raise ValueError(
                f"A query vector is {vector.dtype} of shape {vector.shape}, expected finite "
                f"float32 of shape ({dim},)."
            )
        if k < 1:
            raise ValueError(f"k is {k}, expected at least 1.")
        owners, rows, scores = self._candidates(np.ascontiguousarray(vector), k)
        return self._best(owners, rows, scores, k)

    def _candidates(
        self, vector: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float32]]:
        """Return rows of all segments, best k and ties included, with place of their segment."""
        owners = [np.empty(0, dtype=np.intp)]
        rows = [np.empty(0, dtype=np.int64)]
        scores = [np.empty(0, dtype=np.float32)]
        for place, part in enumerate(self._live):
            structure = part.segment.structure
            rows.append(structure.candidates(vector, k, part.live))
            scores.append(structure.scores(vector, rows[-1]))
            owners.append(np.full(len(rows[-1]), place, dtype=np.intp))
        return np.concatenate(owners), np.concatenate(rows), np.concatenate(scores)

    def _best(
        self,
        owners: NDArray[np.intp],
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
        k: int,
    ) -> Hits:
        if len(scores) > k:
            # All that equal the k-th stay: which of them are in is for their paths to decide.
            keep = scores >= np.partition(scores, -k)[-k]
            owners, rows, scores = owners[keep], rows[keep], scores[keep]
        paths = np.empty(len(rows), dtype=object)
        for place in np.unique(owners):
            mine = owners == place
            paths[mine] = self._live[place].segment.paths.take(rows[mine])
        order = sorted(range(len(rows)), key=lambda i: (-scores[i], paths[i]))[:k]
        return Hits(scores=scores[order], image_paths=tuple(paths[order]))


def open_segment(index_prefix: Path, entry: SegmentEntry, *, dim: int) -> OpenSegment:
    """Open a segment after verifying its files.

    The Parquet file must be intact (CorruptIndex, StorageError); a Faiss file that is not is
    made good in memory from the Parquet file, with a warning in the log.
    """
    parquet = require_intact(index_prefix, entry.parquet)
    paths = read_paths(parquet)
    if len(paths) != entry.rows:
        raise CorruptIndex(
            f"Segment {entry.number} has {len(paths)} rows but its manifest expects {entry.rows}; "
            "restore it from a copy of the index."
        )
    try:
        structure = SearchStructure.open(
            require_intact(index_prefix, entry.faiss), rows=entry.rows, dim=dim
        )
    except CorruptIndex as error:
        _log.warning("faiss_file_rebuilt_in_memory", segment=entry.number, reason=str(error))
        images = read_images(parquet)
        if images.dim != dim:
            raise CorruptIndex(
                f"Segment {entry.number} has vectors of length {images.dim} but its manifest "
                f"expects {dim}; restore it from a copy of the index."
            ) from error
        structure = SearchStructure.build(images.vectors())
    return OpenSegment(entry, paths, structure)


def _live_part(segment: OpenSegment, tombstones: Tombstones) -> _LiveSegment | None:
    """Return a segment with the rows of it that count, None when there are none."""
    gone = tombstones.rows_of(segment.entry.number)
    if len(gone) == 0:
        return _LiveSegment(segment, None)
    if len(gone) == segment.entry.rows:
        return None
    return _LiveSegment(segment, pack_live(segment.entry.rows, gone))
