"""Exact search over more vectors than one pass takes at once."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from imagedex.segments import exact
from imagedex.segments.exact import ExactSearch

_DIM = 4


@pytest.fixture(autouse=True)
def _small_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_ROWS_AT_ONCE", 16)


def _vectors(rows: int, seed: int = 0) -> NDArray[np.float32]:
    # Few different values, so that many scores are equal.
    return np.random.default_rng(seed).integers(-2, 3, (rows, _DIM)).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 100, 1000])
@pytest.mark.parametrize("k", [1, 2, 10, 2000])
def test_the_best_rows_and_all_that_equal_the_last_are_candidates(rows: int, k: int) -> None:
    vectors = _vectors(rows)
    queries = _vectors(5, seed=1)
    gone = np.arange(0, rows, 7)
    live = np.setdiff1d(np.arange(rows), gone)
    found = ExactSearch(vectors).candidates(queries, [k] * 5, gone)
    for query, candidates in zip(queries, found, strict=True):
        scores = (vectors.astype(np.float64) @ query)[live]
        expected = live
        if len(live) > k:
            expected = live[scores >= np.sort(scores)[-k]]
        assert set(expected) <= set(candidates)
        assert not set(candidates) & set(gone)
        assert len(set(candidates)) == len(candidates)


def test_no_more_rows_than_needed_are_candidates() -> None:
    vectors = np.random.default_rng(0).standard_normal((1000, 64)).astype(np.float32)
    (found,) = ExactSearch(vectors).candidates(vectors[:1], [10], np.empty(0, np.int64))
    assert 10 <= len(found) < 20
