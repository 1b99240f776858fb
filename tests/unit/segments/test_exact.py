"""Exact search over more vectors than one pass takes at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from imagedex.segments import exact
from imagedex.segments._faiss_half import HalfPrecisionCopy
from imagedex.segments.exact import ExactSearch

_DIM = 4


@pytest.fixture(autouse=True, params=[range(0), range(1, 2000)], ids=["no copy", "copy"])
def _small_passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_ROWS_AT_ONCE", 16)
    monkeypatch.setattr(exact, "_ROWS_WITH_COPY", request.param)


def _vectors(rows: int, seed: int = 0) -> NDArray[np.float32]:
    # Few different values, so that many scores are equal.
    few = np.array([-0.5, -0.25, 0, 0.25, 0.5], dtype=np.float32)
    return few[np.random.default_rng(seed).integers(0, 5, (rows, _DIM))]


def _unit_vectors(rows: int, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 100, 1000])
@pytest.mark.parametrize("k", [1, 2, 10, 2000])
@pytest.mark.parametrize("at_once", [1, 3, 6])
def test_the_best_rows_and_all_that_equal_the_last_are_candidates(
    rows: int, k: int, at_once: int
) -> None:
    vectors = _vectors(rows)
    queries = _vectors(at_once, seed=1)
    gone = np.arange(0, rows, 7)
    live = np.setdiff1d(np.arange(rows), gone)
    found = ExactSearch(vectors).candidates(queries, [k] * at_once, gone)
    for query, candidates in zip(queries, found, strict=True):
        scores = (vectors.astype(np.float64) @ query)[live]
        expected = live
        if len(live) > k:
            expected = live[scores >= np.sort(scores)[-k]]
        assert set(expected) <= set(candidates)
        assert not set(candidates) & set(gone)
        assert len(set(candidates)) == len(candidates)


@pytest.mark.parametrize("at_once", [1, 6])
def test_no_more_rows_than_needed_are_candidates(at_once: int) -> None:
    vectors = _unit_vectors(1000)
    found = ExactSearch(vectors).candidates(
        vectors[:at_once], [10] * at_once, np.empty(0, np.int64)
    )
    assert all(10 <= len(rows) < 20 for rows in found)


@pytest.mark.parametrize("seed", range(5))
def test_scores_that_half_precision_cannot_tell_apart_are_told_apart(seed: int) -> None:
    # A thousand vectors around one direction, closer to each other than float16 can say.
    chance = np.random.default_rng(seed)
    middle = _unit_vectors(1, seed)
    vectors = middle + 1e-5 * chance.standard_normal((1000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[:1]
    search = ExactSearch(vectors)
    (found,) = search.candidates(query, [10], np.empty(0, np.int64))
    true = (vectors.astype(np.float64) * query).sum(axis=1)
    assert set(np.argsort(-true)[:10]) <= set(found)


def test_the_copy_alone_proves_the_best_of_vectors_that_lie_apart() -> None:
    vectors = _unit_vectors(1000)
    copy = HalfPrecisionCopy(vectors)
    gone = np.arange(0, 1000, 50)
    rows = exact._proven_candidates(copy, vectors[7], 10, gone)
    assert rows is not None
    scores = vectors.astype(np.float64) @ vectors[7]
    scores[gone] = -1
    assert set(np.argsort(-scores)[:10]) <= set(rows)
    # Where the spare candidates do not reach beyond the k-th, it proves nothing.
    assert exact._proven_candidates(copy, vectors[7], 1000, gone) is None


def test_many_copies_share_one_thread_for_each_core() -> None:
    vectors = _unit_vectors(1000)
    HalfPrecisionCopy(vectors).best(vectors[0], 10)
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))
    copies = [HalfPrecisionCopy(vectors) for _ in range(8)]
    for copy in copies:
        copy.best(vectors[0], 10)
    # Those of the first search may not all have been needed for it.
    assert len(list(tasks.iterdir())) < before + len(os.sched_getaffinity(0))


def test_copies_answer_several_threads_at_once() -> None:
    vectors = _unit_vectors(1000)
    copies = [HalfPrecisionCopy(vectors), HalfPrecisionCopy(vectors[::-1])]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: copies[i % 2].best(vectors[i], 1)[1][0], range(1000)))
    assert found == [i if i % 2 == 0 else 999 - i for i in range(1000)]


def test_vectors_that_are_not_aligned_in_memory_are_searched_alike() -> None:
    vectors = _unit_vectors(5000)
    memory = np.zeros(vectors.nbytes + 1, dtype=np.uint8)
    memory[1:] = np.frombuffer(vectors.tobytes(), dtype=np.uint8)
    shifted = np.frombuffer(memory.data, dtype=np.float32, offset=1, count=vectors.size)
    shifted = shifted.reshape(vectors.shape)
    assert not shifted.flags.aligned
    np.testing.assert_allclose(
        exact._inner_products(vectors[:7], shifted), vectors[:7] @ vectors.T, atol=1e-6
    )
