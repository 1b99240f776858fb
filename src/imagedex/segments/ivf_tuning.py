"""How deep a search of inverted lists must go, found by comparing it with exact search.

Recall depends on the vectors, so it is measured on them, when the lists are made. Queries are of
two kinds: rows of the segment, which look for others like them, and rows with so much noise that
they resemble their neighbours no more than a text resembles the pictures that it describes (a
cosine of about 0.3 in CLIP). The best rows for the first kind lie in a few lists, for the second
in hundreds. Which kind a query is of shows in how near the nearest centroid is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagedex.segments._faiss import FaissFile
from imagedex.segments._faiss_ivf import IvfFile, NearLists, training_rows
from imagedex.segments.records import ANY_MARGIN, ANY_NEARNESS, SearchDepth

# Of the first kind more, since a list or two decide what each of them finds, and they cost little.
_ROWS_ASKED_WITH = 400
_TEXTS_ASKED_WITH = 100
_IS_LIKE_TEXT = np.repeat([False, True], [_ROWS_ASKED_WITH, _TEXTS_ASKED_WITH])
_TEXT_LIKENESS = 0.3
_CANDIDATES_PER_RESULT = (2, 3, 4, 6, 10)
_LEAST_LISTS_READ = 8
_MOST_LISTS_READ = 0.5  # Beyond this share exact search is as fast.
# How much of what may be missed is left to lists that are not read; the rest is for codes that do
# not tell rows apart.
_MISSED_BY_LISTS = (0.9, 0.6, 0.3)
_MARGIN_STEP = 1e-4
# Lists that lie closer behind the nearest cost little, and some of these queries are not all.
_LEAST_MARGIN = 0.02
_SHARE_OF_GAP = 0.2
# How much less may be missed than is asked for, since these queries are but some.
_SPARE_RECALL = 0.25


@dataclass(frozen=True, slots=True)
class Tuning:
    """What came out."""

    depths: tuple[SearchDepth, ...]  # In their order; empty when the recall is out of reach.
    recall: float  # Of the worst depth, or the best that was reached.


def tune(ivf: IvfFile, flat: FaissFile, *, ks: tuple[int, ...], recall: float) -> Tuning:
    """Return for each ``k`` the least depths at which recall@k is at least ``recall``.

    Recall@k is the share of the true best ``k`` that is found, on average over the queries of
    the worse kind. Where it costs less, queries that are as near to a centroid as rows of the
    segment have a depth of their own; the other is for all.
    """
    recall += _SPARE_RECALL * (1 - recall)
    queries, own_rows = _queries(flat.vectors())
    glance = ivf.glance(queries)
    nearness = _least_nearness(glance.scores[:, 0])
    is_near = glance.scores[:, 0] >= nearness
    near_lists = NearLists(glance.scores[is_near], glance.numbers[is_near])
    lists = ivf.nearest(queries, max(_LEAST_LISTS_READ, int(ivf.lists * _MOST_LISTS_READ)))
    best_rows = flat.best(queries, min(max(ks) + 1, flat.rows))[1]
    depths: list[SearchDepth] = []
    for k in ks:
        truth = _others(best_rows[:, : k + 1], own_rows, k)
        trial = _Trial(ivf, queries, own_rows, truth, _IS_LIKE_TEXT, lists)
        for_all = trial.depth(ANY_NEARNESS, recall)
        if for_all is None:
            return Tuning((), trial.best_recall)
        chosen = (queries[is_near], own_rows[is_near], truth[is_near], _IS_LIKE_TEXT[is_near])
        for_near = _Trial(ivf, *chosen, near_lists).depth(nearness, recall)
        if for_near is not None and for_near.probes < for_all.probes:
            depths.append(for_near)
        depths.append(for_all)
    return Tuning(tuple(depths), min(depth.recall for depth in depths))


class _Trial:
    """Queries of which is known what they should find."""

    def __init__(
        self,
        ivf: IvfFile,
        queries: NDArray[np.float32],
        own_rows: NDArray[np.int64],
        truth: NDArray[np.int64],
        is_like_text: NDArray[np.bool_],
        lists: NearLists,
    ) -> None:
        """Take queries, the rows that they were made of and those that they should find: (n, k).

        The rows that they were made of do not count. ``lists`` may be read.
        """
        self._ivf = ivf
        self._queries = queries
        self._own_rows = own_rows
        self._truth = truth
        self._kinds = [some for some in (is_like_text, ~is_like_text) if some.any()]
        self._lists = lists
        self._places, self._behind = _places(lists, ivf.lists_of(truth))
        self.best_recall = 0.0

    def depth(self, nearness: float, recall: float) -> SearchDepth | None:
        """Return the cheapest depth that reaches the recall, None if none does."""
        k = self._truth.shape[1]
        for probes, margin in self._reaches(recall):
            found = self._found(probes, margin)
            for count in (share * k for share in _CANDIDATES_PER_RESULT):
                reached = self._recall(found[:, :count])
                if reached >= recall:
                    return SearchDepth(k, nearness, probes, margin, count, round(reached, 4))
        return None

    def _reaches(self, recall: float) -> list[tuple[int, float]]:
        """Return numbers of lists, and margins, that hold enough; those with the fewest rows first.

        Empty if all lists that may be read do not.
        """
        reaches = []
        probes = _LEAST_LISTS_READ
        while probes <= max(_LEAST_LISTS_READ, self._lists.numbers.shape[1]):
            for margin in self._margins(probes, recall):
                lists = self._lists.within(probes=probes, margin=margin)
                rows = self._ivf.rows_in(lists).mean()
                reaches.append((rows, probes, margin))
            probes *= 2
        return [(probes, margin) for _, probes, margin in sorted(reaches)]

    def _margins(self, probes: int, recall: float) -> Iterator[float]:
        """Give margins that may do, none if so many lists do not hold enough."""
        behind = np.where(self._places < probes, self._behind, np.inf)
        held = min(float(np.isfinite(behind[kind]).mean()) for kind in self._kinds)
        if held < recall:
            self.best_recall = max(self.best_recall, held)
            return
        for missed in _MISSED_BY_LISTS:
            share = 1 - (1 - recall) * missed
            margin = max(
                float(np.quantile(behind[kind], share, method="higher")) for kind in self._kinds
            )
            margin = max(margin, _LEAST_MARGIN)
            if math.isfinite(margin):
                yield round((math.floor(margin / _MARGIN_STEP) + 1) * _MARGIN_STEP, 6)
        yield ANY_MARGIN

    def _found(self, probes: int, margin: float) -> NDArray[np.int64]:
        """Search the lists; return as many rows of each query as are ever compared."""
        most = _CANDIDATES_PER_RESULT[-1] * self._truth.shape[1]
        lists = self._lists.within(probes=probes, margin=margin)
        found = self._ivf.candidates(self._queries, most + 1, lists=lists)
        return _others(found, self._own_rows, most)

    def _recall(self, found: NDArray[np.int64]) -> float:
        """Return the recall of the worse kind."""
        hits = np.array(
            [np.isin(one, other).mean() for one, other in zip(self._truth, found, strict=True)]
        )
        reached = min(float(hits[kind].mean()) for kind in self._kinds)
        self.best_recall = max(self.best_recall, reached)
        return reached


def _queries(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return queries, and for each the row that it was made of, which does not count."""
    chance = np.random.default_rng(0)
    # Rows that the lists were made of lie nearer to them than a picture that is not indexed.
    is_unseen = np.ones(len(vectors), dtype=bool)
    is_unseen[training_rows(len(vectors))] = False
    unseen = np.flatnonzero(is_unseen)
    if len(unseen) < len(_IS_LIKE_TEXT):
        unseen = np.arange(len(vectors))
    rows = chance.choice(unseen, len(_IS_LIKE_TEXT))
    queries = vectors[rows].astype(np.float32)
    noise = chance.standard_normal((_TEXTS_ASKED_WITH, vectors.shape[1]), dtype=np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    queries[_IS_LIKE_TEXT] *= _TEXT_LIKENESS
    queries[_IS_LIKE_TEXT] += (1 - _TEXT_LIKENESS**2) ** 0.5 * noise
    return queries, rows


def _least_nearness(nearness: NDArray[np.float32]) -> float:
    """Return from which nearness on a query is taken for one of the first kind.

    That is a little below the least of those that are, unless others are as near.
    """
    least = float(nearness[~_IS_LIKE_TEXT].min())
    gap = max(0.0, least - float(nearness[_IS_LIKE_TEXT].max()))
    return round(least - _SHARE_OF_GAP * gap, 4)


def _places(
    nearest: NearLists, lists: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return for some lists of each query their places among its nearest, and how far behind.

    Both have the shape of ``lists``. A list that is not there has the place after the last.
    """
    places = np.full(lists.shape, nearest.numbers.shape[1], dtype=np.int64)
    behind = np.zeros(lists.shape, dtype=np.float32)
    for i, (numbers, scores) in enumerate(zip(nearest.numbers, nearest.scores, strict=True)):
        is_there = lists[i, :, np.newaxis] == numbers
        first = np.argmax(is_there, axis=1)
        places[i] = np.where(is_there.any(axis=1), first, places[i])
        behind[i] = scores[0] - scores[first]
    return places, behind


def _others(found: NDArray[np.int64], own_rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the first ``count`` rows of each query that are not the one it was made of."""
    is_own = found == own_rows[:, np.newaxis]
    order = np.argsort(is_own, axis=1, kind="stable")  # Moves it to the end.
    others: NDArray[np.int64] = np.take_along_axis(found, order, axis=1)[:, :count]
    return others
