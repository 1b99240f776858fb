"""Rows that count no longer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import CorruptIndex
from imagedex.core.images import RowLocation
from imagedex.segments import _parquet
from imagedex.segments.integrity import require_intact
from imagedex.segments.records import TombstoneEntry

RowArray = NDArray[np.int64]

_NO_ROWS: RowArray = np.empty(0, dtype=np.int64)


class Tombstones:
    """A set of rows, by segment. Immutable."""

    def __init__(self, rows: Mapping[int, RowArray]) -> None:
        """Take the rows of each segment, rising and without repetition."""
        self._rows = rows

    def rows_of(self, segment: int) -> RowArray:
        """Return the rows of a segment that count no longer: int64, rising."""
        return self._rows.get(segment, _NO_ROWS)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    def __contains__(self, location: RowLocation) -> bool:
        rows = self.rows_of(location.segment)
        place = int(np.searchsorted(rows, location.row))
        return place < len(rows) and int(rows[place]) == location.row

    def locations(self) -> set[RowLocation]:
        """Return them one by one."""
        return {
            RowLocation(segment, row)
            for segment, rows in self._rows.items()
            for row in rows.tolist()
        }

    def with_rows(self, segments: RowArray, rows: RowArray) -> Tombstones:
        """Return the union with row ``rows[i]`` of segment ``segments[i]``, for all i."""
        merged = dict(self._rows)
        for segment in np.unique(segments).tolist():
            merged[segment] = np.union1d(self.rows_of(segment), rows[segments == segment])
        return Tombstones(merged)


class TombstoneFiles:
    """Reads the tombstones of generations. Safe to call from several threads.

    The last result is remembered, so that a generation which only adds to it costs what it adds.
    """

    def __init__(self, index_prefix: Path) -> None:
        self._index_prefix = index_prefix
        self._last: tuple[tuple[TombstoneEntry, ...], Tombstones] = ((), Tombstones({}))

    def of(self, entries: tuple[TombstoneEntry, ...]) -> Tombstones:
        """Return the tombstones of a manifest. Raises CorruptIndex, StorageError."""
        known, tombstones = self._last
        if entries[: len(known)] != known:
            known, tombstones = (), Tombstones({})
        tombstones = add_tombstones(self._index_prefix, tombstones, entries[len(known) :])
        self._last = (entries, tombstones)
        return tombstones


def add_tombstones(
    index_prefix: Path, tombstones: Tombstones, entries: Sequence[TombstoneEntry]
) -> Tombstones:
    """Return the union with those of further files. Raises CorruptIndex, StorageError."""
    for entry in entries:
        path = require_intact(index_prefix, entry.file)
        before = len(tombstones)
        tombstones = tombstones.with_rows(*_parquet.read_tombstones(path))
        if len(tombstones) - before != entry.rows:
            raise CorruptIndex(
                f"The file {str(path)!r} adds {len(tombstones) - before} tombstones but its "
                f"manifest expects {entry.rows}; restore it from a copy of the index."
            )
    return tombstones


def to_arrays(locations: Iterable[RowLocation]) -> tuple[RowArray, RowArray]:
    """Return the segments and the rows of locations, in their order."""
    pairs = [(location.segment, location.row) for location in locations]
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return array[:, 0].copy(), array[:, 1].copy()
