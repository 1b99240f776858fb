"""What the catalog knows of a directory's files, small enough to hold a million of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from imagedex.catalog import OutlineRow


class KnownFiles:
    """Size, mtime and state of each known file, by a hash of its path: 33 bytes for each.

    Tells which files of a scan are as they were, and which known ones the scan did not meet. Two
    paths of one hash (a chance of 1 in 10 million among a million files) may make it say that a
    file has changed, or was not met, never that it is as it was with another size or mtime.
    """

    def __init__(self, batches: Iterable[Sequence[OutlineRow]]) -> None:
        """Take note of all rows of an outline."""
        columns: list[NDArray[np.int64]] = []
        for rows in batches:
            hashes = [hash(row[0]) for row in rows]
            # What could not be read has no stamp, and is not as it was.
            sizes = [-1 if row[1] is None else row[1] for row in rows]
            mtimes = [0 if row[2] is None else row[2] for row in rows]
            is_indexed = [row[3] for row in rows]
            columns.append(np.array([hashes, sizes, mtimes, is_indexed], dtype=np.int64))
        table = np.concatenate(columns, axis=1) if columns else np.empty((4, 0), dtype=np.int64)
        del columns
        order = np.argsort(table[0], kind="stable")
        self._hashes = table[0][order]
        self._sizes = table[1][order]
        self._mtimes = table[2][order]
        self._is_indexed = table[3][order].astype(np.bool_)
        self._is_met = np.zeros(len(order), dtype=np.bool_)

    def __len__(self) -> int:
        return len(self._hashes)

    def are_unchanged(
        self, paths: Sequence[str], sizes: Sequence[int], mtimes: Sequence[int]
    ) -> NDArray[np.bool_]:
        """Say of each file whether it is indexed with this size and mtime (ns); all are met."""
        if not len(self._hashes):
            return np.zeros(len(paths), dtype=np.bool_)
        rows, is_known = self._rows_of(paths)
        self._is_met[rows[is_known]] = True
        unchanged: NDArray[np.bool_] = (
            is_known
            & self._is_indexed[rows]
            & (self._sizes[rows] == np.array(sizes, dtype=np.int64))
            & (self._mtimes[rows] == np.array(mtimes, dtype=np.int64))
        )
        return unchanged

    def not_met(self, batches: Iterable[Sequence[OutlineRow]]) -> Iterator[str]:
        """Yield those paths of the same outline that were never asked for."""
        if self._is_met.all():
            return
        for rows in batches:
            paths = [row[0] for row in rows]
            found, is_known = self._rows_of(paths)
            is_missing = is_known & ~self._is_met[found]
            yield from (paths[place] for place in np.flatnonzero(is_missing))

    def _rows_of(self, paths: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        hashes = np.fromiter(map(hash, paths), dtype=np.int64, count=len(paths))
        rows = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return rows, self._hashes[rows] == hashes
