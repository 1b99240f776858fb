"""Rates of workers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from imagedex.core.errors import Unavailable
from imagedex.indexing.pace import MIN_CHUNK_IMAGES, UNKNOWN_CHUNK_IMAGES, Pace


class Rates:
    """A store of rates."""

    def __init__(self, rates: Mapping[tuple[str, str], float] | None = None) -> None:
        self.rates = dict(rates or {})
        self.times_stored = 0

    def worker_rates(self) -> Mapping[tuple[str, str], float]:
        return self.rates

    def record_worker_rates(self, measured: Mapping[tuple[str, str], float]) -> None:
        self.rates.update(measured)
        self.times_stored += 1


class Clock:
    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def work(
    pace: Pace,
    slot: str,
    *,
    images: int,
    from_: float,
    to: float,
    own: float | None = None,
    model: str = "clip",
) -> None:
    own_seconds = to - from_ if own is None else own
    pace.record(slot, model, images=images, own_seconds=own_seconds, began_at=from_, ended_at=to)


def test_of_a_worker_that_nobody_knows_little_is_expected() -> None:
    pace = Pace(Rates(), target_seconds=3)
    assert pace.rate("a", "clip") is None
    assert pace.latest("a") is None
    assert not pace.knows("clip")
    assert pace.wish("a", "clip") == UNKNOWN_CHUNK_IMAGES


def test_a_chunk_should_last_as_long_as_was_wished() -> None:
    pace = Pace(Rates(), target_seconds=3)
    work(pace, "fast", images=100, from_=0, to=1)
    work(pace, "slow", images=16, from_=0, to=32)
    assert pace.wish("fast", "clip") == 300
    assert pace.wish("slow", "clip") == MIN_CHUNK_IMAGES
    assert pace.wish("fast", "another model") == UNKNOWN_CHUNK_IMAGES


def test_two_chunks_side_by_side_take_the_time_of_both_together() -> None:
    pace = Pace(Rates(), target_seconds=3)
    # The cores are shared: each chunk takes four seconds, and two end each four seconds.
    for begin in range(0, 40, 4):
        work(pace, "a", images=100, from_=begin, to=begin + 4)
        work(pace, "a", images=100, from_=begin, to=begin + 4)
    assert pace.rate("a", "clip") == pytest.approx(50, rel=0.1)


def test_a_chunk_that_waited_for_the_one_before_it_is_not_taken_for_slow() -> None:
    pace = Pace(Rates(), target_seconds=3)
    for end in range(2, 22, 2):
        # Each is with the worker for four seconds, in the first half of which the other is done.
        work(pace, "a", images=100, from_=end - 4, to=end, own=2.1)
    assert pace.rate("a", "clip") == pytest.approx(50, rel=0.05)


def test_loading_a_model_and_standing_idle_do_not_count() -> None:
    pace = Pace(Rates(), target_seconds=3)
    work(pace, "a", images=50, from_=0, to=31, own=1.0)
    assert pace.rate("a", "clip") == pytest.approx(50)
    work(pace, "a", images=50, from_=500, to=501)
    assert pace.rate("a", "clip") == pytest.approx(50)


def test_a_worker_that_becomes_slower_gets_less_soon() -> None:
    pace = Pace(Rates(), target_seconds=3)
    for second in range(20):
        work(pace, "a", images=100, from_=second, to=second + 1)
    for second in range(20, 60, 5):
        work(pace, "a", images=100, from_=second, to=second + 5)
    assert pace.rate("a", "clip") == pytest.approx(20, rel=0.25)


def test_a_chunk_that_took_no_time_at_all_gives_a_number() -> None:
    pace = Pace(Rates(), target_seconds=3)
    work(pace, "a", images=10, from_=5, to=5)
    rate = pace.rate("a", "clip")
    assert rate is not None
    assert rate > 0


def test_rates_outlive_the_process_and_are_stored_now_and_then() -> None:
    rates, clock = Rates(), Clock()
    pace = Pace(rates, target_seconds=3, monotonic=clock)
    for second in range(25):
        clock.seconds = 1000 + second
        work(pace, "a", images=40, from_=second, to=second + 1)
        pace.store()
    assert rates.times_stored == 2
    work(pace, "b", images=10, from_=0, to=1)
    pace.store(at_once=True)
    pace.store(at_once=True)
    assert rates.times_stored == 3
    later = Pace(rates, target_seconds=3)
    assert later.wish("a", "clip") == 120
    assert later.rate("b", "clip") == pytest.approx(10)
    assert later.knows("clip")
    assert not later.knows("tiny")


def test_rates_that_cannot_be_stored_are_stored_the_next_time() -> None:
    class Failing(Rates):
        def record_worker_rates(self, measured: Mapping[tuple[str, str], float]) -> None:
            if self.times_stored == 0:
                self.times_stored = 1
                raise Unavailable("The database is busy.")
            super().record_worker_rates(measured)

    rates = Failing()
    pace = Pace(rates, target_seconds=3)
    work(pace, "a", images=10, from_=0, to=1)
    pace.store(at_once=True)
    assert rates.rates == {}
    pace.store(at_once=True)
    assert rates.rates == {("a", "clip"): pytest.approx(10)}


def test_the_latest_rate_is_that_of_the_model_used_last() -> None:
    pace = Pace(Rates({("a", "tiny"): 900.0, ("a", "clip"): 4.0}), target_seconds=3)
    assert pace.latest("a") == 4.0
    work(pace, "a", images=100, from_=0, to=1, model="tiny")
    assert pace.latest("a") == pytest.approx(100)
