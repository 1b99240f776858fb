"""How deep a search of inverted lists must go, found by comparing it with exact search.

Recall depends on the vectors, so it is measured on them, when the lists are made. Queries are of
two kinds, and the worse of the two counts: rows of the segment, which look for others like them,
and rows with so much noise that they resemble their neighbours no more than a text resembles the
pictures that it describes (a cosine of about 0.3 in CLIP).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagedex.segments._faiss import FaissFile
from imagedex.segments._faiss_ivf import IvfFile
from imagedex.segments.records import SearchDepth

_QUERIES_OF_A_KIND = 100
_TEXT_LIKENESS = 0.3
_CANDIDATES_PER_RESULT = (2, 3, 4, 6, 10)
_MOST_LISTS_READ = 0.5  # Beyond this share exact search is as fast.


@dataclass(frozen=True, slots=True)
class Tuning:
    """What came out."""

    depths: tuple[SearchDepth, ...]  # By rising k; empty when the wanted recall is out of reach.
    recall: float  # Of the worst depth, or the best that was reached.


def tune(ivf: IvfFile, flat: FaissFile, *, ks: tuple[int, ...], recall: float) -> Tuning:
    """Return for each ``k`` the least depth at which recall@k is at least ``recall``.

    Recall@k is the share of the true best ``k`` that is found, on average over the queries.
    """
    vectors = flat.vectors()
    queries, own_rows = _queries(vectors)
    depths = []
    for k in ks:
        truth = _others(flat.best(queries, min(k + 1, len(vectors)))[1], own_rows, k)
        best = 0.0
        for probes, found in _searches(ivf, queries, own_rows, k):
            for share in _CANDIDATES_PER_RESULT:
                count = share * k
                reached = _recall(found[:, :count], truth)
                best = max(best, reached)
                if reached >= recall:
                    depths.append(SearchDepth(k, probes, count, round(reached, 4)))
                    break
            if depths and depths[-1].k == k:
                break
        else:
            return Tuning((), best)
    return Tuning(tuple(depths), min(depth.recall for depth in depths))


def _queries(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return queries, and for each the row that it was made of, which does not count."""
    chance = np.random.default_rng(0)
    rows = chance.integers(0, len(vectors), 2 * _QUERIES_OF_A_KIND)
    queries = vectors[rows].astype(np.float32)
    noise = chance.standard_normal((_QUERIES_OF_A_KIND, vectors.shape[1]), dtype=np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    like_texts = queries[_QUERIES_OF_A_KIND:]
    like_texts *= _TEXT_LIKENESS
    like_texts += (1 - _TEXT_LIKENESS**2) ** 0.5 * noise
    return queries, rows


def _searches(
    ivf: IvfFile, queries: NDArray[np.float32], own_rows: NDArray[np.int64], k: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Search deeper and deeper; give how many lists were read and what was found."""
    most = _CANDIDATES_PER_RESULT[-1] * k
    probes = min(8, ivf.lists)
    while probes <= max(8, int(ivf.lists * _MOST_LISTS_READ)):
        yield probes, _others(ivf.candidates(queries, most + 1, probes=probes), own_rows, most)
        probes *= 2


def _others(found: NDArray[np.int64], own_rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the first ``count`` rows of each query that are not the one it was made of."""
    is_own = found == own_rows[:, np.newaxis]
    order = np.argsort(is_own, axis=1, kind="stable")  # Moves it to the end.
    others: NDArray[np.int64] = np.take_along_axis(found, order, axis=1)[:, :count]
    return others


def _recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the lower recall of the two kinds of queries."""
    hits = np.array([np.isin(true, some).mean() for true, some in zip(truth, found, strict=True)])
    return float(min(hits[:_QUERIES_OF_A_KIND].mean(), hits[_QUERIES_OF_A_KIND:].mean()))
