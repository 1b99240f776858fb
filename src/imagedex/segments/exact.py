"""Exact search: the best rows of a segment, with scores as if each vector had been compared.

The time goes into reading the vectors from memory. So a few queries are looked up in a copy in
half precision; many that came together, and all in tiny segments, in one pass of Faiss over the
vectors themselves. Both are a little wrong, by no more than a known error; what they find counts
only where that proves that nothing is missing, and every vector is compared where it does not
(docs/decisions/0003-parquet-and-faiss-segments.md has figures).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagedex.segments._faiss import FaissFile
from imagedex.segments._faiss_half import HalfPrecisionCopy
from imagedex.segments.selections import Selection

# Below, either takes a tenth of a millisecond; above, the copy would take a gigabyte.
_ROWS_WITH_COPY = range(250, 500_001)
# One pass of Faiss for so many queries costs less than a scan of the copy for each of them.
_QUERIES_OVER_COPY = 4
_SPARE_ROWS = 64  # Asked for beside k, so that the worst of them lies clearly below the k-th.

# Rows are found among all at about the cost of gathering one in so many.
_ROWS_PER_ROW_FOUND = 20

_ROWS_AT_ONCE = 65_536  # Bounds the memory of scores while every vector is compared.
_ROWS_AT_ONCE_GATHERED = 512
_ROWS_COMPARED_AT_ONCE = 32  # In less time than it takes to find out which are worth it.
_ROWS_PER_ALIGNED_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """Rows of a segment, in no order."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


class ExactSearch:
    """The vectors of one segment. Safe to call from several threads."""

    def __init__(self, file: FaissFile, *, with_copy: bool = True) -> None:
        """Search the vectors of ``file``, which are not changed.

        ``with_copy`` is for segments whose queries all come here: where their number makes it
        worth while, a copy in half precision is made in memory.
        """
        self._file = file
        self._vectors = file.vectors()
        self._copy = None
        if with_copy and len(self._vectors) in _ROWS_WITH_COPY:
            self._copy = HalfPrecisionCopy(self._vectors)
            file.read_through()

    @property
    def rows(self) -> int:
        """How many vectors there are."""
        return len(self._vectors)

    def best(
        self, queries: NDArray[np.float32], ks: Sequence[int], gone: NDArray[np.int64]
    ) -> list[ScoredRows]:
        """Return for each query its best ``k`` rows and all that equal the last of them.

        ``queries`` is float32 of shape (n, dim), with one ``k`` each. Rows of ``gone``
        (ascending) do not count. Scores are computed in float64 and rounded once to float32.
        """
        return [
            self._best_of_all(query, k, gone) if found is None else found
            for query, k, found in zip(queries, ks, self._proven(queries, ks, gone), strict=True)
        ]

    def best_selected(
        self, queries: NDArray[np.float32], ks: Sequence[int], selection: Selection
    ) -> list[ScoredRows]:
        """Do what ``best`` does among some rows only."""
        return [
            self._proven_selected(query, k, selection) or self.best_among(query, selection.rows, k)
            for query, k in zip(queries, ks, strict=True)
        ]

    def _proven_selected(
        self, query: NDArray[np.float32], k: int, selection: Selection
    ) -> ScoredRows | None:
        """Return the best of them if enough are among the best of all, which are found fast."""
        count = _SPARE_ROWS + int(2 * k / max(selection.share, 1e-9))
        if count * _ROWS_PER_ROW_FOUND > selection.count:
            return None
        if self._copy is not None:
            scores, rows = self._copy.best(query, count)
            error = self._copy.error(query)
        else:
            all_scores, all_rows = self._file.best(query[np.newaxis], count)
            scores, rows = all_scores[0], all_rows[0]
            error = _summing_error(query)
        live = rows[selection.holds(rows)]
        return self._if_proven(query, k, rows, live, scores[-1] + error)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return a copy of the vectors of these rows, float32 of shape (len(rows), dim)."""
        return self._file.take(rows)

    def _proven(
        self, queries: NDArray[np.float32], ks: Sequence[int], gone: NDArray[np.int64]
    ) -> Iterator[ScoredRows | None]:
        """Give for each query what is proven to be its best rows, or None."""
        if len(self._vectors) <= _SPARE_ROWS:  # All of them would be found, and compared then.
            rows = np.arange(len(self._vectors))
            rows = rows[~np.isin(rows, gone)]
            for query, k in zip(queries, ks, strict=True):
                yield self.best_among(query, rows, k)
            return
        if self._copy is not None and len(ks) <= _QUERIES_OVER_COPY:
            for query, k in zip(queries, ks, strict=True):
                yield self._proven_by_copy(self._copy, query, k, gone)
            return
        count = min(max(ks, default=0) + _SPARE_ROWS, len(self._vectors))
        all_scores, all_rows = self._file.best(queries, count)
        for query, k, scores, rows in zip(queries, ks, all_scores, all_rows, strict=True):
            bound = scores[-1] + _summing_error(query)
            yield self._if_proven(query, k, rows, rows[~np.isin(rows, gone)], bound)

    def _proven_by_copy(
        self, copy: HalfPrecisionCopy, query: NDArray[np.float32], k: int, gone: NDArray[np.int64]
    ) -> ScoredRows | None:
        scores, rows = copy.best(query, k + _SPARE_ROWS)
        live = rows[~np.isin(rows, gone)]
        return self._if_proven(query, k, rows, live, scores[-1] + copy.error(query))

    def _if_proven(
        self,
        query: NDArray[np.float32],
        k: int,
        rows: NDArray[np.int64],
        live: NDArray[np.int64],
        bound: float,
    ) -> ScoredRows | None:
        """Return the best of ``live``, those of ``rows`` that count, if nothing better can be.

        All rows that are not among ``rows`` lie below ``bound``.
        """
        if len(live) < k and len(rows) < len(self._vectors):
            return None
        found = self.best_among(query, live, k)
        if len(rows) == len(self._vectors):
            return found
        return found if _is_below(bound, found.scores) else None

    def _best_of_all(
        self, query: NDArray[np.float32], k: int, gone: NDArray[np.int64]
    ) -> ScoredRows:
        candidates = _Candidates(k, _summing_error(query))
        for start in range(0, len(self._vectors), _ROWS_AT_ONCE):
            block = self._vectors[start : start + _ROWS_AT_ONCE]
            first, last = np.searchsorted(gone, (start, start + len(block)))
            scores = _inner_products(query, block)
            scores[gone[first:last] - start] = -np.inf
            candidates.add(scores, start)
        self._file.read_through()
        return self.best_among(query, candidates.rows, k)

    def best_among(self, query: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> ScoredRows:
        """Return the best ``k`` of these rows and all that equal the last of them.

        Each score is computed in float64 and rounded once, by itself: equal vectors have equal
        scores wherever they lie.
        """
        exact_query = query.astype(np.float64)
        if len(rows) <= _ROWS_AT_ONCE_GATHERED:
            vectors = self._file.take(rows)
            if len(rows) > max(k, _ROWS_COMPARED_AT_ONCE):
                near = _near_the_best(vectors @ query, query, k)
                rows, vectors = rows[near], vectors[near]
            scores = [(vectors.astype(np.float64) * exact_query).sum(axis=1)]
        else:
            if len(rows) > k:
                blocks = [self._file.take(block) @ query for block in _blocks(rows)]
                rows = rows[_near_the_best(np.concatenate(blocks), query, k)]
            scores = [
                (self._file.take(block).astype(np.float64) * exact_query).sum(axis=1)
                for block in _blocks(rows)
            ]
        return _k_best(ScoredRows(rows, np.concatenate(scores).astype(np.float32)), k)


def _near_the_best(
    rough: NDArray[np.float32], query: NDArray[np.float32], k: int
) -> NDArray[np.bool_]:
    """Mark what can be among the best ``k``, by sums in float32: the others need no float64."""
    near: NDArray[np.bool_] = rough >= np.partition(rough, -k)[-k] - 2 * _summing_error(query)
    return near


class CopiedRows:
    """Some rows of a segment, with a copy in half precision of their own.

    Safe to call from several threads. It does not hold the segment, whose files it would keep on
    the disk when they are swept.
    """

    def __init__(self, exact: ExactSearch, rows: NDArray[np.int64]) -> None:
        """Read the vectors of these rows, which rise. Raises StorageError."""
        self._rows = rows
        vectors = exact.take(rows)
        self._copy = HalfPrecisionCopy(vectors)
        self.bytes = len(rows) * copied_bytes_per_row(vectors.shape[1])

    def best(self, exact: ExactSearch, query: NDArray[np.float32], k: int) -> ScoredRows:
        """Return the best ``k`` of them and all that equal the last, with their exact scores.

        ``exact`` is of the segment.
        """
        scores, places = self._copy.best(query, k + _SPARE_ROWS)
        found = exact.best_among(query, self._rows[places], k)
        if len(places) == len(self._rows):
            return found
        if _is_below(scores[-1] + self._copy.error(query), found.scores):
            return found
        return exact.best_among(query, self._rows, k)


def copied_bytes_per_row(dim: int) -> int:
    """Return what :class:`CopiedRows` take: numbers in half precision, and the row's number."""
    return 2 * dim + 8


def _is_below(bound: float, scores: NDArray[np.float32]) -> bool:
    """Say whether what lies below a bound cannot equal one of these scores.

    Not even when it is rounded up to the least of them.
    """
    return bool(bound < np.nextafter(scores.min(), np.float32(-np.inf)))


def _blocks(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the rows in pieces whose vectors do not fill the memory, at least one."""
    starts = range(0, max(1, len(rows)), _ROWS_AT_ONCE_GATHERED)
    return [rows[start : start + _ROWS_AT_ONCE_GATHERED] for start in starts]


def _summing_error(query: NDArray[np.float32]) -> float:
    """Return how far a sum in float32 can lie from the true score.

    It is at most dim * 2**-24 times both lengths, in whatever order the terms are added
    (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, 3.1).
    """
    return (len(query) + 8) * 2.0**-24 * float(np.linalg.norm(query)) * 1.01


def _k_best(found: ScoredRows, k: int) -> ScoredRows:
    if len(found.rows) <= k:
        return found
    keep = found.scores >= np.partition(found.scores, -k)[-k]
    return ScoredRows(found.rows[keep], found.scores[keep])


def _inner_products(
    query: NDArray[np.float32], vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return all inner products, float32, shape (n_vectors,)."""
    if vectors.flags.aligned:
        return vectors @ query
    # Vectors that are mapped from a Faiss file begin wherever its header ends. NumPy multiplies
    # numbers that are not aligned one by one, ten times as slowly as BLAS, so each piece is
    # copied to where they are, small enough to stay in the processor's cache.
    scores = np.empty(len(vectors), dtype=np.float32)
    aligned = np.empty((_ROWS_PER_ALIGNED_BLOCK, vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(vectors), _ROWS_PER_ALIGNED_BLOCK):
        piece = vectors[start : start + _ROWS_PER_ALIGNED_BLOCK]
        copy = aligned[: len(piece)]
        copy.view(np.uint8)[:] = piece.view(np.uint8)
        scores[start : start + len(piece)] = copy @ query
    return scores


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
