"""Work for all who wait."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from imagedex.search.batching import Batcher

_DEADLINE_SECONDS = 60


class _Gated:
    """Doubles numbers; each batch waits to be let through, and tells that it has begun."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.begun.release()
        assert self.gate.acquire(timeout=_DEADLINE_SECONDS)
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


def _until_waiting(batcher: Batcher[int, int], count: int) -> None:
    deadline = threading.Event()
    for _ in range(_DEADLINE_SECONDS * 100):
        if len(batcher._waiting) == count:
            return
        deadline.wait(0.01)
    raise AssertionError(f"{len(batcher._waiting)} items wait, expected {count}.")


def _queue(
    pool: ThreadPoolExecutor, batcher: Batcher[int, int], work: _Gated, items: list[int]
) -> list[Future[int]]:
    """Start the first item, and let the others queue up behind it in order."""
    futures = [pool.submit(batcher.run, items[0])]
    assert work.begun.acquire(timeout=_DEADLINE_SECONDS)
    for waiting, item in enumerate(items[1:], start=1):
        futures.append(pool.submit(batcher.run, item))
        _until_waiting(batcher, waiting)
    return futures


def test_an_item_that_comes_alone_is_worked_on_at_once() -> None:
    batches: list[list[int]] = []

    def work(items: list[int]) -> list[int]:
        batches.append(items)
        return [item + 1 for item in items]

    batcher = Batcher(work)
    assert [batcher.run(1), batcher.run(2)] == [2, 3]
    assert batches == [[1], [2]]


def test_items_that_wait_are_worked_on_together_in_the_order_they_came() -> None:
    work = _Gated()
    batcher = Batcher(work)
    with ThreadPoolExecutor(6) as pool:
        futures = _queue(pool, batcher, work, [1, 2, 3, 4, 5])
        work.gate.release(2)
        assert [future.result(_DEADLINE_SECONDS) for future in futures] == [2, 4, 6, 8, 10]
    assert work.batches == [[1], [2, 3, 4, 5]]


def test_no_batch_is_larger_than_allowed() -> None:
    work = _Gated()
    batcher = Batcher(work, max_items=2)
    with ThreadPoolExecutor(6) as pool:
        futures = _queue(pool, batcher, work, [1, 2, 3, 4, 5])
        work.gate.release(3)
        assert [future.result(_DEADLINE_SECONDS) for future in futures] == [2, 4, 6, 8, 10]
    assert work.batches == [[1], [2, 3], [4, 5]]


def test_an_item_that_fails_does_not_fail_those_beside_it() -> None:
    work = _Gated()
    batcher = Batcher(work)
    with ThreadPoolExecutor(6) as pool:
        futures = _queue(pool, batcher, work, [1, 12, 13, 14])
        work.gate.release(10)
        assert [futures[place].result(_DEADLINE_SECONDS) for place in (0, 1, 3)] == [2, 24, 28]
        with pytest.raises(ValueError, match="13"):
            futures[2].result(_DEADLINE_SECONDS)
    assert work.batches == [[1], [12, 13, 14], [12], [13], [14]]
    assert batcher.run(7) == 14


def test_an_item_that_is_at_fault_is_told_so_without_a_second_look_at_the_others() -> None:
    batches: list[list[int]] = []

    def work(items: list[int]) -> list[int | Exception]:
        batches.append(items)
        return [ValueError(f"{item} is odd") if item % 2 else item for item in items]

    batcher = Batcher(work)
    assert batcher.run(2) == 2
    with pytest.raises(ValueError, match="3 is odd"):
        batcher.run(3)
    assert batches == [[2], [3]]


def test_everything_is_answered_once_under_load() -> None:
    lock = threading.Lock()
    worked_on: list[int] = []

    def work(items: list[int]) -> list[int]:
        assert lock.acquire(blocking=False), "Two batches ran at once."
        try:
            worked_on.extend(items)
            return [-item for item in items]
        finally:
            lock.release()

    batcher = Batcher(work, max_items=4)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(batcher.run, range(2000)))
    assert answers == [-item for item in range(2000)]
    assert sorted(worked_on) == list(range(2000))


def test_a_batch_given_up_by_its_thread_releases_all_who_wait() -> None:
    begun = threading.Event()
    gate = threading.Event()

    def work(items: list[int]) -> list[int]:
        begun.set()
        assert gate.wait(_DEADLINE_SECONDS)
        if items == [1]:
            raise SystemExit
        return items

    batcher = Batcher(work)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(batcher.run, 1)
        assert begun.wait(_DEADLINE_SECONDS)
        second = pool.submit(batcher.run, 2)
        _until_waiting(batcher, 1)
        gate.set()
        assert second.result(_DEADLINE_SECONDS) == 2
        with pytest.raises(SystemExit):
            first.result(_DEADLINE_SECONDS)
