"""What the catalog knows of a directory's files, small enough to hold a million of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from imagedex.catalog import Outline

ScalarT = TypeVar("ScalarT", bound=np.generic)


class KnownFiles:
    """Size, mtime and state of each known file, by a hash of its path: 33 bytes for each.

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
        all_hashes = _joined(hashes, np.int64)
        order = np.argsort(all_hashes, kind="stable")
        self._hashes = all_hashes[order]
        self._sizes = _joined(sizes, np.int64)[order]
        self._mtimes = _joined(mtimes, np.int64)[order]
        self._is_indexed = _joined(is_indexed, np.bool_)[order]
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
        hashes = _hashes_of(paths)
        rows = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return rows, self._hashes[rows] == hashes


def _hashes_of(paths: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, paths), dtype=np.int64, count=len(paths))


def _joined(parts: list[NDArray[ScalarT]], kind: type[ScalarT]) -> NDArray[ScalarT]:
    """Return the parts as one array, and let go of them."""
    joined = np.concatenate(parts) if parts else np.empty(0, dtype=kind)
    parts.clear()
    return joined
