"""Search of large segments: candidates by inverted lists, their scores exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imagedex.segments._faiss_ivf import IvfFile, RowSet
from imagedex.segments.exact import ExactSearch, ScoredRows
from imagedex.segments.records import SearchDepth


class ApproximateSearch:
    """A segment with inverted lists. Safe to call from several threads.

    What is found has the scores that exact search gives; that nothing better is missed holds for
    as many as the recall of the depth says. More results than the depths are for are searched
    for exactly.
    """

    def __init__(self, ivf: IvfFile, depths: Sequence[SearchDepth], exact: ExactSearch) -> None:
        self._ivf = ivf
        self._depths = depths
        self._exact = exact
        self._live: tuple[NDArray[np.int64], RowSet | None] = (_NO_ROWS, None)

    def best(
        self, queries: NDArray[np.float32], ks: Sequence[int], gone: NDArray[np.int64]
    ) -> list[ScoredRows]:
        """Return for each query its best ``k`` rows and those found that equal the last of them.

        As :meth:`ExactSearch.best`, but for what is missed.
        """
        found: list[ScoredRows | None] = [None] * len(ks)
        live = self._live_rows(gone)
        for least, depth in zip((0, *(d.k for d in self._depths)), self._depths, strict=False):
            mine = [i for i, k in enumerate(ks) if least < k <= depth.k]
            if not mine:
                continue
            rows = self._ivf.candidates(
                queries[mine], depth.candidates, probes=depth.probes, among=live
            )
            for i, some in zip(mine, rows, strict=True):
                some = some[some >= 0]
                if len(some) >= ks[i]:
                    found[i] = self._exact.best_among(queries[i], some, ks[i])
        # Those that ask for more, and where the lists that were read held too few.
        left = [i for i, one in enumerate(found) if one is None]
        if left:
            exact = self._exact.best(queries[left], [ks[i] for i in left], gone)
            for i, one in zip(left, exact, strict=True):
                found[i] = one
        return [one for one in found if one is not None]

    def _live_rows(self, gone: NDArray[np.int64]) -> RowSet | None:
        if len(gone) == 0:
            return None
        known, live = self._live
        if known is not gone:
            # Kept for the next query: a generation asks with the same array each time.
            live = RowSet(self._exact.rows, without=gone)
            self._live = (gone, live)
        return live


_NO_ROWS: NDArray[np.int64] = np.empty(0, dtype=np.int64)
