"""Exact search over more vectors than one pass takes at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from imagedex.segments import exact
from imagedex.segments._faiss import FaissFile
from imagedex.segments._faiss_half import HalfPrecisionCopy
from imagedex.segments.durable import HashingFile
from imagedex.segments.exact import ExactSearch

_DIM = 4
_ROWS_FOR_TWO_THREADS = 10_000


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
@pytest.mark.parametrize("at_once", [1, 3, 9])
def test_the_best_rows_and_all_that_equal_the_last_are_candidates(
    rows: int, k: int, at_once: int
) -> None:
    vectors = _vectors(rows)
    queries = _vectors(at_once, seed=1)
    gone = np.arange(0, rows, 7)
    live = np.setdiff1d(np.arange(rows), gone)
    found = _search(vectors).best(queries, [k] * at_once, gone)
    for query, best in zip(queries, found, strict=True):
        scores = (vectors.astype(np.float64) @ query)[live]
        expected = live
        if len(live) > k:
            expected = live[scores >= np.sort(scores)[-k]]
        assert sorted(best.rows) == expected.tolist()
        assert best.scores.tolist() == (vectors[best.rows].astype(np.float64) @ query).tolist()


@pytest.mark.parametrize("at_once", [1, 9])
@pytest.mark.parametrize("seed", range(5))
def test_scores_that_the_copy_cannot_tell_apart_are_told_apart(seed: int, at_once: int) -> None:
    # A thousand vectors around one direction, closer to each other than float16 or a sum can say.
    chance = np.random.default_rng(seed)
    middle = _unit_vectors(1, seed)
    vectors = middle + 1e-7 * chance.standard_normal((1000, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:at_once]
    found = _search(vectors).best(queries, [10] * at_once, np.empty(0, np.int64))
    for query, best in zip(queries, found, strict=True):
        true = (vectors.astype(np.float64) * query).sum(axis=1).astype(np.float32)
        assert sorted(best.rows) == np.flatnonzero(true >= np.sort(true)[-10]).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_no_score_of_the_copy_is_further_off_than_its_error(seed: int) -> None:
    vectors = _unit_vectors(1000, seed)
    vectors[:, 3] *= 30  # Some dimensions of real models are far larger than the others.
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    copy = HalfPrecisionCopy(vectors)
    for query in _unit_vectors(20, seed + 100):
        scores, rows = copy.best(query, 1000)
        off = np.abs(scores - vectors[rows].astype(np.float64) @ query)
        assert 0 < off.max() <= copy.error(query) < 0.002


@pytest.mark.parametrize("at_once", [1, 9])
def test_vectors_that_lie_apart_are_found_without_comparing_all(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = _unit_vectors(1000)
    search = _search(vectors)
    monkeypatch.setattr(search, "_best_of_all", None)
    gone = np.arange(0, 1000, 50)
    found = search.best(vectors[:at_once], [10] * at_once, gone)
    for query, best in zip(vectors, found, strict=False):
        scores = vectors.astype(np.float64) @ query
        scores[gone] = -1
        assert sorted(best.rows) == sorted(np.argsort(-scores)[:10])


def test_many_copies_share_one_thread_for_each_core() -> None:
    vectors = _unit_vectors(_ROWS_FOR_TWO_THREADS)
    HalfPrecisionCopy(vectors).best(vectors[0], 10)
    tasks = Path("/proc/self/task")
    before = len(list(tasks.iterdir()))
    copies = [HalfPrecisionCopy(vectors) for _ in range(8)]
    for copy in copies:
        copy.best(vectors[0], 10)
    # Those of the first search may not all have been needed for it.
    assert len(list(tasks.iterdir())) < before + len(os.sched_getaffinity(0))


def test_copies_answer_several_threads_at_once() -> None:
    vectors = _unit_vectors(_ROWS_FOR_TWO_THREADS)
    copies = [HalfPrecisionCopy(vectors), HalfPrecisionCopy(vectors[::-1])]
    last = len(vectors) - 1
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: copies[i % 2].best(vectors[i], 1)[1][0], range(500)))
    assert found == [i if i % 2 == 0 else last - i for i in range(500)]


def test_vectors_that_are_not_aligned_in_memory_are_searched_alike(tmp_path: Path) -> None:
    vectors = _unit_vectors(5000)
    path = tmp_path / "vectors.faiss"
    with path.open("wb") as file:
        FaissFile.build(vectors).write_to(HashingFile(file))
    mapped = FaissFile.open(path, rows=5000, dim=64)
    assert not mapped.vectors().flags.aligned
    np.testing.assert_allclose(
        exact._inner_products(vectors[7], mapped.vectors()), vectors @ vectors[7], atol=1e-6
    )
    np.testing.assert_array_equal(
        HalfPrecisionCopy(mapped.vectors()).best(vectors[7], 10),
        HalfPrecisionCopy(vectors).best(vectors[7], 10),
    )


def _search(vectors: NDArray[np.float32]) -> ExactSearch:
    return ExactSearch(FaissFile.build(vectors))
