"""Search of large segments: candidates by inverted lists, their scores exactly."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from imagedex.core.cache import LruCache
from imagedex.segments._faiss_ivf import IvfFile, ListedRows, NearLists, RowSet
from imagedex.segments.exact import CopiedRows, ExactSearch, ScoredRows, copied_bytes_per_row
from imagedex.segments.records import ANY_NEARNESS, SearchDepth
from imagedex.segments.selections import Selection

# So few are compared in less time than the lists take to be looked through.
_FEW_ROWS = 2_000
# Some more are compared faster in a copy of their own than they are found in lists of all rows.
# 52,000 rows of 768 dimensions take so much.
_BYTES_OF_A_COPY = 80 * 1024 * 1024
_BYTES_OF_COPIES = 128 * 1024 * 1024
_MOST_COPIES = 64

# Where a part of all rows is searched as deep as all of them are for more results, the best of that
# part are found, if they are spread as the rows are; this much deeper, since they seldom are so.
_SPARE_DEPTH_AMONG_SELECTED = 1.5
# So many times as deep as a search of all where they are not: of some rows the best lie closer
# together, so that codes order them less well, and a depth that just reaches its recall for all
# falls short of it for some.
_DEPTH_AMONG_SELECTED = 2
_LEAST_CANDIDATES_AMONG_SELECTED = 100

_ONE_MORE = 1  # Than the results that a depth is tuned for: the image that is asked with.

# Of some queries that have this depth, and the lists that they find near at a glance.
_Candidates = Callable[[NDArray[np.float32], SearchDepth, NearLists | None], NDArray[np.int64]]


class ApproximateSearch:
    """A segment with inverted lists. Safe to call from several threads.

    What is found has the scores that exact search gives; that nothing better is missed holds for
    as many as the recall of the depth says. More results than the depths are for are searched
    for exactly.
    """

    # Of all segments of the process; they hold none of these.
    _copies: ClassVar = LruCache[Selection, CopiedRows](
        max_entries=_MOST_COPIES, max_weight=_BYTES_OF_COPIES
    )

    def __init__(self, ivf: IvfFile, depths: Sequence[SearchDepth], exact: ExactSearch) -> None:
        self._ivf = ivf
        self._depths = depths
        self._exact = exact
        self._live: tuple[NDArray[np.int64], RowSet | None] = (_NO_ROWS, None)
        self._listed_lock = threading.Lock()
        self._listed: WeakKeyDictionary[Selection, ListedRows] = WeakKeyDictionary()
        self._copying = threading.Lock()

    def best(
        self, queries: NDArray[np.float32], ks: Sequence[int], gone: NDArray[np.int64]
    ) -> list[ScoredRows]:
        """Return for each query its best ``k`` rows and those found that equal the last of them.

        As :meth:`ExactSearch.best`, but for what is missed.
        """
        live = self._live_rows(gone)

        def candidates(
            some: NDArray[np.float32], depth: SearchDepth, near: NearLists | None
        ) -> NDArray[np.int64]:
            lists = self._lists_to_read(some, depth, near)
            return self._ivf.candidates(some, depth.candidates, lists=lists, among=live)

        found = self._found_by_lists(queries, ks, ks, candidates)
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

        A few are compared exactly. More are looked for as deep as more results of all rows would
        be, and where these lists hold fewer of them than others do, in the lists that hold some.
        """
        copy_bytes = selection.count * copied_bytes_per_row(queries.shape[1])
        if selection.count > _FEW_ROWS and copy_bytes <= _BYTES_OF_A_COPY:
            copy = self._copy_of(selection)
            return [copy.best(self._exact, query, k) for query, k in zip(queries, ks, strict=True)]
        found: list[ScoredRows | None] = [None] * len(ks)
        if selection.count > _FEW_ROWS:
            found = self._found_among(queries, ks, self._listed_rows(selection), selection.share)
        left = [i for i, one in enumerate(found) if one is None]
        if left:
            exact = self._exact.best_selected(queries[left], [ks[i] for i in left], selection)
            for i, one in zip(left, exact, strict=True):
                found[i] = one
        return [one for one in found if one is not None]

    def _found_among(
        self,
        queries: NDArray[np.float32],
        ks: Sequence[int],
        listed: ListedRows,
        share: float,
    ) -> list[ScoredRows | None]:
        def from_few(
            some: NDArray[np.float32], depth: SearchDepth, near: NearLists | None
        ) -> NDArray[np.int64]:
            lists = self._lists_to_read(some, depth, near)
            rows = self._ivf.candidates(some, depth.candidates, lists=lists, among=listed)
            rows[~listed.have_their_share(lists)] = -1
            return rows

        def from_all(
            some: NDArray[np.float32], depth: SearchDepth, _: NearLists | None
        ) -> NDArray[np.int64]:
            every = self._ivf.nearest(some, self._ivf.lists)
            lists = listed.lists_to_read(every, _DEPTH_AMONG_SELECTED * depth.probes)
            count = _DEPTH_AMONG_SELECTED * depth.candidates
            count = max(_LEAST_CANDIDATES_AMONG_SELECTED, count)
            return self._ivf.candidates(some, count, lists=lists, among=listed)

        as_many = [math.ceil(_SPARE_DEPTH_AMONG_SELECTED * k / share) for k in ks]
        found = self._found_by_lists(queries, ks, as_many, from_few)
        left = [self._depth(k) if one is None else None for k, one in zip(ks, found, strict=True)]
        self._search(found, queries, ks, left, None, from_all)
        return found

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return a copy of the vectors of these rows, float32 of shape (len(rows), dim)."""
        return self._exact.take(rows)

    def _lists_to_read(
        self, queries: NDArray[np.float32], depth: SearchDepth, near: NearLists | None
    ) -> NearLists:
        lists = near or self._ivf.nearest(queries, depth.probes)
        return lists.within(probes=depth.probes, margin=depth.margin)

    def _found_by_lists(
        self,
        queries: NDArray[np.float32],
        ks: Sequence[int],
        as_many: Sequence[int],
        candidates: _Candidates,
    ) -> list[ScoredRows | None]:
        """Return for each query what lists find, None where that is not enough.

        They are searched as deep as for ``as_many`` results.
        """
        found: list[ScoredRows | None] = [None] * len(ks)
        glance = self._ivf.glance(queries)
        first = [
            self._depth(k, nearness=float(nearness))
            for k, nearness in zip(as_many, glance.scores[:, 0], strict=True)
        ]
        self._search(found, queries, ks, first, glance, candidates)
        # Where the few lists of a glance hold too little, more are read.
        again = [
            self._depth(k) if one is None and depth is not None and depth.at_a_glance else None
            for k, depth, one in zip(as_many, first, found, strict=True)
        ]
        self._search(found, queries, ks, again, None, candidates)
        return found

    def _search(
        self,
        found: list[ScoredRows | None],
        queries: NDArray[np.float32],
        ks: Sequence[int],
        depths: Sequence[SearchDepth | None],
        glance: NearLists | None,
        candidates: _Candidates,
    ) -> None:
        """Put into ``found`` what the queries that have a depth find, where that is enough."""
        for depth in dict.fromkeys(depths):
            if depth is None:
                continue
            mine = [i for i, other in enumerate(depths) if other == depth]
            near = None
            if glance is not None and depth.at_a_glance:
                near = NearLists(glance.scores[mine], glance.numbers[mine])
            for i, some in zip(mine, candidates(queries[mine], depth, near), strict=True):
                some = some[some >= 0]
                if len(some) >= ks[i]:
                    found[i] = self._exact.best_among(queries[i], some, ks[i])

    def _depth(self, k: int, *, nearness: float = ANY_NEARNESS) -> SearchDepth | None:
        return depth_for(self._depths, k, nearness=nearness)

    def _live_rows(self, gone: NDArray[np.int64]) -> RowSet | None:
        if len(gone) == 0:
            return None
        known, live = self._live
        if known is not gone:
            # Kept for the next query: a generation asks with the same array each time.
            live = RowSet.all_but(gone, rows=self._exact.rows)
            self._live = (gone, live)
        return live

    def _copy_of(self, selection: Selection) -> CopiedRows:
        # One at a time: it takes memory for the vectors, and whoever asks the same finds it made.
        with self._copying:
            copy = self._copies.get(selection)
            if copy is None:
                copy = CopiedRows(self._exact, selection.rows)
                self._copies.put(selection, copy, weight=copy.bytes)
            return copy

    def _listed_rows(self, selection: Selection) -> ListedRows:
        # Kept for as long as somebody remembers the selection.
        with self._listed_lock:
            listed = self._listed.get(selection)
        if listed is None:
            listed = self._ivf.listed(selection.bits, selection.rows)
            with self._listed_lock:
                self._listed[selection] = listed
        return listed


def depth_for(depths: Sequence[SearchDepth], k: int, *, nearness: float) -> SearchDepth | None:
    """Return the depth for a query of ``k`` results, None for more than they are made for.

    ``nearness`` is its inner product with the nearest centroid.
    """
    for depth in depths:
        if k <= depth.k + _ONE_MORE and nearness >= depth.nearness:
            return depth
    return None


_NO_ROWS: NDArray[np.int64] = np.empty(0, dtype=np.int64)
