"""What the catalog knows of a directory's files, small enough to hold a million of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from imagedex.catalog import Outline

ScalarT = TypeVar("ScalarT", bound=np.generic)


class KnownFiles:
    """Size, mtime and state of each known file, by a hash of its path: 49 bytes for each.

    Tells which files of a scan are as they were, and which known ones the scan did not meet. Two
    paths of one hash (a chance of 1 in 10 million among a million files) may make it say that a
    file has changed, or was not met, never that it is as it was with another size or mtime.
    """

    def __init__(self, outlines: Iterable[Outline]) -> None:
        """Take note of all that is known."""
        hashes, sizes, mtimes, is_indexed = [], [], [], []
        for outline in outlines:
            hashes.append(_hashes_of(outline.image_paths))
            sizes.append(np.array(outline.sizes, dtype=np.int64))
            mtimes.append(np.array(outline.mtimes_ns, dtype=np.int64))
            is_indexed.append(np.array(outline.is_indexed, dtype=np.bool_))
        self._hashes = _joined(hashes, np.int64)
        self._sizes = _joined(sizes, np.int64)
        self._mtimes = _joined(mtimes, np.int64)
        self._is_indexed = _joined(is_indexed, np.bool_)
        self._is_met = np.zeros(len(self._hashes), dtype=np.bool_)
        self._order = np.argsort(self._hashes, kind="stable")
        self._sorted_hashes = self._hashes[self._order]
        self._next_row = 0  # The one after the last that was asked for.

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

    def not_met(self, outlines: Iterable[Outline]) -> Iterator[str]:
        """Yield those paths of the same outlines that were never asked for."""
        if self._is_met.all():
            return
        for outline in outlines:
            paths = outline.image_paths
            found, is_known = self._rows_of(paths)
            is_missing = is_known & ~self._is_met[found]
            yield from (paths[place] for place in np.flatnonzero(is_missing))

    def _rows_of(self, paths: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the row of each path, and whether it is known; where not, the row says nothing."""
        hashes = _hashes_of(paths)
        last = len(self._hashes) - 1
        # A scan comes by nearly all files in the order of the outline, so that most are found where
        # the last one was; looking a hash up among a million costs far more.
        rows = np.minimum(np.arange(self._next_row, self._next_row + len(paths)), last)
        is_known = self._hashes[rows] == hashes
        others = np.flatnonzero(~is_known)
        if len(others):
            places = np.minimum(np.searchsorted(self._sorted_hashes, hashes[others]), last)
            rows[others] = self._order[places]
            is_known[others] = self._sorted_hashes[places] == hashes[others]
        self._next_row = int(rows[-1]) + 1
        return rows, is_known


def _hashes_of(paths: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, paths), dtype=np.int64, count=len(paths))


def _joined(parts: list[NDArray[ScalarT]], kind: type[ScalarT]) -> NDArray[ScalarT]:
    """Return the parts as one array, and let go of them."""
    joined = np.concatenate(parts) if parts else np.empty(0, dtype=kind)
    parts.clear()
    return joined
