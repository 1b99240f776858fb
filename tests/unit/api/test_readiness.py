"""Readiness runs real checks, but strangers cannot make it run them without end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from anyio.from_thread import BlockingPortal

from imagedex.api.lanes import Lane
from imagedex.api.readiness import Readiness

DEADLINE_SECONDS = 60.0


class CountedCheck:
    """A check whose result the test sets."""

    def __init__(self) -> None:
        self.runs = 0
        self.result = {"search": "ok"}
        self.gate = threading.Event()
        self.gate.set()
        self.has_started = threading.Event()

    def __call__(self) -> dict[str, str]:
        self.runs += 1
        self.has_started.set()
        self.gate.wait(DEADLINE_SECONDS)
        return self.result


@pytest.fixture
def check() -> CountedCheck:
    return CountedCheck()


@pytest.fixture
def make(check: CountedCheck) -> Callable[[float], Readiness]:
    lane = Lane("checks", threads=2, max_waiting=10)
    return lambda good_seconds: Readiness(check, lane, good_seconds=good_seconds, bad_seconds=0.0)


def test_good_result_stands_for_a_while(
    portal: BlockingPortal, check: CountedCheck, make: Callable[[float], Readiness]
) -> None:
    readiness = make(3600.0)
    assert [portal.call(readiness.checks) for _ in range(5)] == [{"search": "ok"}] * 5
    assert check.runs == 1


def test_good_result_that_is_old_is_made_again(
    portal: BlockingPortal, check: CountedCheck, make: Callable[[float], Readiness]
) -> None:
    readiness = make(0.0)
    portal.call(readiness.checks)
    check.result = {"search": "the model is gone"}
    assert portal.call(readiness.checks) == {"search": "the model is gone"}
    assert check.runs == 2


def test_bad_result_does_not_stand_as_long_as_a_good_one(
    portal: BlockingPortal, check: CountedCheck, make: Callable[[float], Readiness]
) -> None:
    readiness = make(3600.0)
    check.result = {"search": "loading"}
    assert portal.call(readiness.checks) == {"search": "loading"}
    check.result = {"search": "ok"}
    assert portal.call(readiness.checks) == {"search": "ok"}


def test_bad_result_stands_for_a_moment(portal: BlockingPortal, check: CountedCheck) -> None:
    readiness = Readiness(check, Lane("checks", threads=2, max_waiting=10), bad_seconds=3600.0)
    check.result = {"search": "loading"}
    assert [portal.call(readiness.checks) for _ in range(5)] == [{"search": "loading"}] * 5
    assert check.runs == 1


def test_nobody_waits_longer_than_the_limit_for_a_check_that_hangs(
    portal: BlockingPortal, check: CountedCheck
) -> None:
    lane = Lane("checks", threads=1, max_waiting=0)
    readiness = Readiness(check, lane, max_seconds=0.01)
    check.gate.clear()
    try:
        for _ in range(3):
            assert portal.call(readiness.checks) == {"checks": "no result after 0.01 s"}
        assert check.runs == 1
    finally:
        check.gate.set()


def test_all_who_ask_at_once_share_one_run_and_one_who_leaves_ends_it_for_nobody(
    portal: BlockingPortal, check: CountedCheck, make: Callable[[float], Readiness]
) -> None:
    readiness = make(3600.0)
    check.gate.clear()
    first = portal.start_task_soon(readiness.checks)
    assert check.has_started.wait(DEADLINE_SECONDS)
    others = [portal.start_task_soon(readiness.checks) for _ in range(5)]
    first.cancel()
    check.gate.set()
    assert [other.result(DEADLINE_SECONDS) for other in others] == [{"search": "ok"}] * 5
    assert check.runs == 1


def test_check_that_raises_is_run_again(
    portal: BlockingPortal, make: Callable[[float], Readiness]
) -> None:
    def fail() -> dict[str, str]:
        raise OSError("the share is gone")

    readiness = Readiness(fail, Lane("checks", threads=1, max_waiting=0))
    for _ in range(2):
        with pytest.raises(OSError, match="share"):
            portal.call(readiness.checks)
