"""Which rows of a segment count for a query."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagedex.core.cache import LruCache
from imagedex.core.ids import image_digest_of, image_id_of, is_image_id
from imagedex.segments._parquet import FactColumns, PathColumn
from imagedex.segments.filters import ImageFilter

_REMEMBERED_FILTERS = 64
_REMEMBERED_BYTES = 32 * 1024 * 1024  # For each segment.
_BYTES_PER_ID = 70  # As Python text.
_ROWS_AT_ONCE = 50_000


class Selection:
    """Rows of a segment: those that a filter allows, less those that are gone. Immutable."""

    def __init__(self, marked: NDArray[np.bool_]) -> None:
        """Take all rows that are marked; shape (rows of the segment,)."""
        self.count = int(np.count_nonzero(marked))
        self.bits = np.packbits(marked, bitorder="little")  # A bit for each row of the segment.
        self._size = len(marked)

    @property
    def share(self) -> float:
        """How many of the segment's rows these are, 0 to 1."""
        return self.count / max(1, self._size)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows, ascending."""
        marked = np.unpackbits(self.bits, count=self._size, bitorder="little")
        return np.flatnonzero(marked).astype(np.int64, copy=False)

    def holds(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say of each row whether it is one of these."""
        held: NDArray[np.bool_] = (self.bits[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1 != 0
        return held


@dataclass(frozen=True, slots=True, eq=False)
class _Remembered:
    """What a filter allows, and what is left of that without some rows."""

    allowed: NDArray[np.uint8]  # A bit for each row.
    gone: NDArray[np.int64]
    selection: Selection


class SegmentRows:
    """Finds rows of a segment by what is recorded of its images, not by their vectors.

    Safe to call from several threads. What the filters used last allow is remembered, so that
    asking again costs nothing; other rows may have gone in between.
    """

    def __init__(self, paths: PathColumn, facts: FactColumns) -> None:
        self._paths = paths
        self._facts = facts
        self._ids = _IdColumn(paths)
        self._finding = threading.Lock()
        self._remembered = LruCache[ImageFilter, _Remembered](
            max_entries=_REMEMBERED_FILTERS, max_weight=_REMEMBERED_BYTES
        )

    def selected(self, image_filter: ImageFilter, gone: NDArray[np.int64]) -> Selection:
        """Return the rows that the filter allows, without those that are gone.

        A generation passes the same array ``gone`` each time. Raises InvalidRequest for globs
        that cannot be understood or take too long, CorruptIndex, StorageError.
        """
        known = self._remembered.get(image_filter)
        if known is not None and known.gone is gone:
            return known.selection
        # One at a time: it takes memory for all paths, and whoever asks the same finds it known.
        with self._finding:
            return self._selected(image_filter, gone)

    def _selected(self, image_filter: ImageFilter, gone: NDArray[np.int64]) -> Selection:
        known = self._remembered.get(image_filter)
        if known is not None and known.gone is gone:
            return known.selection
        if known is not None:
            allowed = known.allowed
        else:
            allowed = np.packbits(self._allowed(image_filter), bitorder="little")
        marked = np.unpackbits(allowed, count=len(self._paths), bitorder="little").astype(bool)
        marked[gone] = False
        selection = Selection(marked)
        weight = 2 * allowed.nbytes + _BYTES_PER_ID * len(image_filter.image_ids or ())
        self._remembered.put(image_filter, _Remembered(allowed, gone, selection), weight=weight)
        return selection

    def of_images(self, image_ids: Collection[str]) -> NDArray[np.int64]:
        """Return the rows of these images, gone or not, ascending."""
        return self._ids.rows_of(image_ids)

    def _allowed(self, image_filter: ImageFilter) -> NDArray[np.bool_]:
        # The cheap tests first, so that globs are held against few paths.
        marked = np.ones(len(self._paths), dtype=bool)
        if image_filter.image_ids is not None:
            marked[:] = False
            marked[self._ids.rows_of(image_filter.image_ids)] = True
        ranges = (
            ("mtime_ns", image_filter.modified_after_ns, image_filter.modified_before_ns),
            ("size", image_filter.min_bytes, _beyond(image_filter.max_bytes)),
            ("width", image_filter.min_width, _beyond(image_filter.max_width)),
            ("height", image_filter.min_height, _beyond(image_filter.max_height)),
        )
        for name, least, beyond in ranges:
            if least is not None:
                marked &= self._facts.column(name) >= least
            if beyond is not None:
                marked &= self._facts.column(name) < beyond
        if image_filter.path_prefix is not None:
            marked &= self._paths.below(image_filter.path_prefix)
        if image_filter.path_globs:
            left = np.flatnonzero(marked)
            marked[left] = self._paths.matching(image_filter.path_globs, left)
        return marked


def _beyond(most: int | None) -> int | None:
    return None if most is None else most + 1


class _IdColumn:
    """The ids of a segment's images, by their first 8 bytes, made when they are asked for first."""

    def __init__(self, paths: PathColumn) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        # Beginnings that rise, and the row of each.
        self._sorted: tuple[NDArray[np.uint64], NDArray[np.int64]] | None = None

    def rows_of(self, image_ids: Collection[str]) -> NDArray[np.int64]:
        """Return the rows of these images, ascending; what is no id has none."""
        ids = frozenset(image_id for image_id in image_ids if is_image_id(image_id))
        wanted = np.array([int(image_id[:16], 16) for image_id in ids], dtype=np.uint64)
        with self._lock:
            if self._sorted is None:
                self._sorted = self._made()
        beginnings, order = self._sorted
        first = np.searchsorted(beginnings, wanted, side="left")
        last = np.searchsorted(beginnings, wanted, side="right")
        # Two ids in 2**64 can begin alike.
        pieces = [order[start:end] for start, end in zip(first, last, strict=True) if start < end]
        rows = np.sort(np.concatenate(pieces)) if pieces else np.empty(0, dtype=np.int64)
        paths = self._paths.take(rows)
        right = [row for row, path in zip(rows, paths, strict=True) if image_id_of(path) in ids]
        return np.array(right, dtype=np.int64)

    def _made(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        beginnings = np.empty(len(self._paths), dtype=np.uint64)
        for start in range(0, len(beginnings), _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(beginnings)))
            digests = b"".join(image_digest_of(path)[:8] for path in self._paths.take(rows))
            beginnings[rows] = np.frombuffer(digests, dtype=">u8")
        order = np.argsort(beginnings)
        return beginnings[order], order
