"""Where the rows of merged segments lie now."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from imagedex.core.images import RowLocation

RowArray = NDArray[np.int64]

GONE = -1


class MovedRows:
    """What a merge did to the rows of the segments that it replaced. Immutable."""

    def __init__(self, segment: int, rows: Mapping[int, RowArray]) -> None:
        """Take the new segment's number and, by the number of each old one, where its rows went.

        ``rows[old][i]`` is the new row of row ``i``, or ``GONE`` where that had a tombstone.
        """
        self._segment = segment
        self._rows = rows
        kept = {old: np.flatnonzero(new != GONE) for old, new in rows.items()}
        self._old_segments = _joined([np.full(len(k), old) for old, k in kept.items()])
        self._old_rows = _joined(list(kept.values()))
        self._new_rows = _joined([rows[old][k] for old, k in kept.items()])

    def __len__(self) -> int:
        """Return how many rows have a new place."""
        return len(self._new_rows)

    def now(self, location: RowLocation) -> RowLocation | None:
        """Return where a row lies now: there, unless it was of a merged segment; None if gone."""
        rows = self._rows.get(location.segment)
        if rows is None:
            return location
        row = int(rows[location.row]) if 0 <= location.row < len(rows) else GONE
        return None if row == GONE else RowLocation(self._segment, row)

    def part(self, start: int, count: int) -> list[tuple[RowLocation, RowLocation]]:
        """Return old and new place of ``count`` rows from the ``start``-th on."""
        chosen = slice(start, start + count)
        return [
            (RowLocation(segment, row), RowLocation(self._segment, new_row))
            for segment, row, new_row in zip(
                self._old_segments[chosen].tolist(),
                self._old_rows[chosen].tolist(),
                self._new_rows[chosen].tolist(),
                strict=True,
            )
        ]


def _joined(arrays: list[RowArray]) -> RowArray:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays]).astype(np.int64)
