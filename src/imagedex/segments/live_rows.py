"""Which image each row of a generation stands for, without its vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from imagedex.core.errors import CorruptIndex
from imagedex.core.images import RowLocation
from imagedex.segments._parquet import read_paths
from imagedex.segments.records import Manifest
from imagedex.segments.tombstones import Tombstones, add_tombstones

_ROWS_AT_ONCE = 50_000


class LiveRows:
    """The rows of a generation that count, to be ticked off against what somebody else knows."""

    def __init__(self, index_prefix: Path, manifest: Manifest) -> None:
        """Read the paths of all segments, about a hundred bytes an image.

        Raises CorruptIndex, StorageError.
        """
        tombstones = add_tombstones(index_prefix, Tombstones({}), manifest.tombstones)
        self._paths = {}
        self._left = {}
        for segment in manifest.segments:
            paths = read_paths(index_prefix / segment.parquet.name)
            gone = tombstones.rows_of(segment.number)
            if len(paths) != segment.rows or (len(gone) and gone[-1] >= segment.rows):
                raise CorruptIndex(
                    f"Segment {segment.number} has {len(paths)} rows, which do not fit its "
                    "manifest and its tombstones; restore it from a copy of the index."
                )
            self._paths[segment.number] = paths
            left = np.ones(segment.rows, dtype=bool)
            left[gone] = False
            self._left[segment.number] = left

    def tick(self, known: Sequence[tuple[str, RowLocation]]) -> list[str]:
        """Tick off images that somebody knows; return those that do not lie where he thinks.

        A row can be ticked off once.
        """
        by_segment: dict[int, list[tuple[str, int]]] = {}
        for path, location in known:
            by_segment.setdefault(location.segment, []).append((path, location.row))
        wrong: list[str] = []
        for segment, pairs in by_segment.items():
            left = self._left.get(segment)
            if left is None:
                wrong.extend(path for path, _ in pairs)
                continue
            live = [(path, row) for path, row in pairs if 0 <= row < len(left) and left[row]]
            rows = np.array([row for _, row in live], dtype=np.int64)
            stored = self._paths[segment].take(rows)
            right = [row for (path, row), there in zip(live, stored, strict=True) if path == there]
            left[right] = False
            found = set(right)
            wrong.extend(path for path, row in pairs if row not in found)
        return wrong

    def left(self) -> Iterator[str]:
        """Yield the images of all rows that were not ticked off."""
        for segment, left in self._left.items():
            rows = np.flatnonzero(left)
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                yield from self._paths[segment].take(rows[start : start + _ROWS_AT_ONCE])
