"""Exact search: all vectors of a segment are compared with the queries.

The time goes into reading the vectors from memory, so one pass serves all queries that came
together (docs/decisions/0003-parquet-and-faiss-segments.md has figures). Few queries go over a
copy in half precision first, which is half as much to read; what it finds is kept only where the
bound of its rounding proves that nothing is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imagedex.segments._faiss_half import HalfPrecisionCopy

# Bounds the memory of a pass: 8 MB of scores for 32 queries.
_ROWS_AT_ONCE = 65_536
_ROWS_PER_EXACT_BLOCK = 512
_ROWS_PER_ALIGNED_BLOCK = 2048
# Below, a pass takes a millisecond anyway; above, the copy would take more than a gigabyte.
_ROWS_WITH_COPY = range(20_000, 500_001)
# A matrix product for so many queries costs less than a scan of the copy for each of them.
_QUERIES_OVER_COPY = 4
_SPARE_CANDIDATES = 64


class ExactSearch:
    """The vectors of one segment. Safe to call from several threads."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        """Take float32 vectors, shape (rows, dim), which are neither copied nor changed."""
        self._vectors = vectors
        self._copy = HalfPrecisionCopy(vectors) if len(vectors) in _ROWS_WITH_COPY else None

    def candidates(
        self, queries: NDArray[np.float32], ks: Sequence[int], gone: NDArray[np.int64]
    ) -> list[NDArray[np.int64]]:
        """Return for each query rows among which are its best ``k`` and all that equal the last.

        ``queries`` is float32 of shape (n, dim), with one ``k`` each. Rows of ``gone``
        (ascending) do not count.
        """
        if self._copy is None or len(queries) > _QUERIES_OVER_COPY:
            return self._compare_all(queries, ks, gone)
        found = []
        for query, k in zip(queries, ks, strict=True):
            rows = _proven_candidates(self._copy, query, k, gone)
            if rows is None:
                (rows,) = self._compare_all(query[np.newaxis], [k], gone)
            found.append(rows)
        return found

    def _compare_all(
        self, queries: NDArray[np.float32], ks: Sequence[int], gone: NDArray[np.int64]
    ) -> list[NDArray[np.int64]]:
        best = [_Candidates(k, self._error(query)) for query, k in zip(queries, ks, strict=True)]
        for start in range(0, len(self._vectors), _ROWS_AT_ONCE):
            block = self._vectors[start : start + _ROWS_AT_ONCE]
            first, last = np.searchsorted(gone, (start, start + len(block)))
            scores = _inner_products(queries, block)
            scores[:, gone[first:last] - start] = -np.inf
            for candidates, row_scores in zip(best, scores, strict=True):
                candidates.add(row_scores, start)
        return [candidates.rows for candidates in best]

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the inner products of these rows with ``query``, float32, in their order.

        Computed in float64 and rounded once, each row by itself: equal vectors have equal
        scores wherever they lie.
        """
        exact_query = query.astype(np.float64)
        scores = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), _ROWS_PER_EXACT_BLOCK):  # Bounds the memory.
            block = slice(start, start + _ROWS_PER_EXACT_BLOCK)
            vectors = self._vectors[rows[block]].astype(np.float64)
            scores[block] = (vectors * exact_query).sum(axis=1)
        return scores

    def _error(self, query: NDArray[np.float32]) -> float:
        """Return how far a float32 score can lie from the true one.

        It is at most dim * 2**-24 times both lengths, in whatever order the terms are added
        (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, 3.1).
        """
        return (len(query) + 8) * 2.0**-24 * float(np.linalg.norm(query)) * 1.01


def _inner_products(
    queries: NDArray[np.float32], vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return all inner products, float32, shape (n_queries, n_vectors)."""
    if vectors.flags.aligned:
        return queries @ vectors.T
    # Vectors that are mapped from a Faiss file begin wherever its header ends. NumPy multiplies
    # numbers that are not aligned one by one, ten times as slowly as BLAS, so each piece is
    # copied to where they are, small enough to stay in the processor's cache.
    scores = np.empty((len(queries), len(vectors)), dtype=np.float32)
    aligned = np.empty((_ROWS_PER_ALIGNED_BLOCK, vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(vectors), _ROWS_PER_ALIGNED_BLOCK):
        piece = vectors[start : start + _ROWS_PER_ALIGNED_BLOCK]
        copy = aligned[: len(piece)]
        copy.view(np.uint8)[:] = piece.view(np.uint8)
        scores[:, start : start + len(piece)] = queries @ copy.T
    return scores


def _proven_candidates(
    copy: HalfPrecisionCopy, query: NDArray[np.float32], k: int, gone: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Return the candidates of one query, or None when the copy cannot prove that none is missing.

    That happens when very many scores lie close together or most of the best rows are gone.
    """
    scores, rows = copy.best(query, k + _SPARE_CANDIDATES)
    worst = scores[-1]
    live = ~np.isin(rows, gone)
    scores, rows = scores[live], rows[live]
    if len(scores) < k:
        return None
    # Two scores that are equal in truth can differ by twice the error of one.
    floor = scores[k - 1] - 2 * copy.error(query)
    return rows[scores >= floor] if worst < floor else None


class _Candidates:
    """The rows that can still be among the best ``k``, collected block by block."""

    def __init__(self, k: int, error: float) -> None:
        self._k = k
        self._error = error
        self._floor = -np.inf
        self._scores = np.empty(0, dtype=np.float32)
        self.rows = np.empty(0, dtype=np.int64)

    def add(self, scores: NDArray[np.float32], start: int) -> None:
        """Take the scores of the rows from ``start`` on; those that do not count are -inf."""
        found = np.flatnonzero(scores >= self._floor)
        scores = np.concatenate([self._scores, scores[found]])
        rows = np.concatenate([self.rows, found + start])
        if len(scores) > self._k:
            # What may equal the k-th lies above this floor, both scores being a little wrong.
            kth = np.partition(scores, -self._k)[-self._k]
            self._floor = float(kth) - 2 * self._error
        keep = (scores >= self._floor) & (scores > -np.inf)
        self._scores, self.rows = scores[keep], rows[keep]
