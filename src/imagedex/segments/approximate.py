"""Search of large segments: candidates by inverted lists, their scores exactly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from imagedex.segments._faiss_ivf import IvfFile, ListedRows, RowSet
from imagedex.segments.exact import ExactSearch, ScoredRows
from imagedex.segments.records import SearchDepth
from imagedex.segments.selections import Selection

# So few are compared in less time than the lists take to be looked through.
_FEW_ROWS = 2_000
# So many times as deep as a search of all: of some rows the best lie closer together, so that codes
# order them less well, and a depth that just reaches its recall for all falls short of it for some.
_DEPTH_AMONG_SELECTED = 2
_LEAST_CANDIDATES_AMONG_SELECTED = 100

_ONE_MORE = 1  # Than the results that a depth is tuned for: the image that is asked with.

_Candidates = Callable[[NDArray[np.float32], SearchDepth], NDArray[np.int64]]


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
        self._listed_lock = threading.Lock()
        self._listed: WeakKeyDictionary[Selection, ListedRows] = WeakKeyDictionary()

    def best(
        self, queries: NDArray[np.float32], ks: Sequence[int], gone: NDArray[np.int64]
    ) -> list[ScoredRows]:
        """Return for each query its best ``k`` rows and those found that equal the last of them.

        As :meth:`ExactSearch.best`, but for what is missed.
        """
        live = self._live_rows(gone)

        def candidates(some: NDArray[np.float32], depth: SearchDepth) -> NDArray[np.int64]:
            return self._ivf.candidates(some, depth.candidates, probes=depth.probes, among=live)

        found = self._found_by_lists(queries, ks, candidates)
        # Those that ask for more, and where the lists that were read held too few.
        left = [i for i, one in enumerate(found) if one is None]
        if left:
            exact = self._exact.best(queries[left], [ks[i] for i in left], gone)
            for i, one in zip(left, exact, strict=True):
                found[i] = one
        return [one for one in found if one is not None]

    def best_selected(
        self, queries: NDArray[np.float32], ks: Sequence[int], selection: Selection
    ) -> list[ScoredRows]:
        """Do what ``best`` does among some rows only.

        In the nearest lists twice as many of them are looked at as a search of all rows looks at:
        so more lists when they are spread over all, and only those that hold some when not.
        """
        found: list[ScoredRows | None] = [None] * len(ks)
        if selection.count > _FEW_ROWS:
            listed = self._listed_rows(selection)

            def candidates(some: NDArray[np.float32], depth: SearchDepth) -> NDArray[np.int64]:
                count = _DEPTH_AMONG_SELECTED * depth.candidates
                return self._ivf.candidates_among(
                    some,
                    max(_LEAST_CANDIDATES_AMONG_SELECTED, count),
                    among=listed,
                    depth=_DEPTH_AMONG_SELECTED * depth.probes,
                )

            found = self._found_by_lists(queries, ks, candidates)
        left = [i for i, one in enumerate(found) if one is None]
        if left:
            exact = self._exact.best_selected(queries[left], [ks[i] for i in left], selection)
            for i, one in zip(left, exact, strict=True):
                found[i] = one
        return [one for one in found if one is not None]

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return a copy of the vectors of these rows, float32 of shape (len(rows), dim)."""
        return self._exact.take(rows)

    def _found_by_lists(
        self, queries: NDArray[np.float32], ks: Sequence[int], candidates: _Candidates
    ) -> list[ScoredRows | None]:
        """Return for each query what lists find, None where that is not enough."""
        found: list[ScoredRows | None] = [None] * len(ks)
        least = 0
        for depth in self._depths:
            most = depth.k + _ONE_MORE
            mine = [i for i, k in enumerate(ks) if least < k <= most]
            least = most
            if not mine:
                continue
            for i, some in zip(mine, candidates(queries[mine], depth), strict=True):
                some = some[some >= 0]
                if len(some) >= ks[i]:
                    found[i] = self._exact.best_among(queries[i], some, ks[i])
        return found

    def _live_rows(self, gone: NDArray[np.int64]) -> RowSet | None:
        if len(gone) == 0:
            return None
        known, live = self._live
        if known is not gone:
            # Kept for the next query: a generation asks with the same array each time.
            live = RowSet(self._exact.rows, without=gone)
            self._live = (gone, live)
        return live

    def _listed_rows(self, selection: Selection) -> ListedRows:
        # Kept for as long as somebody remembers the selection.
        with self._listed_lock:
            listed = self._listed.get(selection)
        if listed is None:
            listed = self._ivf.listed(selection.bits, selection.rows)
            with self._listed_lock:
                self._listed[selection] = listed
        return listed


_NO_ROWS: NDArray[np.int64] = np.empty(0, dtype=np.int64)
