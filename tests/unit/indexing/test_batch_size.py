"""Which batch is settled on, for models whose speed the test makes up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagedex.indexing.batch_size import ENOUGH, SAMPLES, BatchSizer


def settle(sizer: BatchSizer, seconds: Callable[[int], float]) -> list[int]:
    """Run batches of the sizes asked for until it settles; return these sizes."""
    asked = []
    while not sizer.is_settled:
        asked.append(sizer.next_size())
        sizer.record(asked[-1], seconds(asked[-1]))
        assert len(asked) < 1000
    return asked


def test_a_model_that_gains_from_each_doubling_gets_the_largest_batch() -> None:
    sizer = BatchSizer(32)
    asked = settle(sizer, lambda size: 1.0)
    assert sizer.next_size() == 32
    assert asked == [size for size in (1, 2, 4, 8, 16, 32) for _ in range(SAMPLES)]


def test_a_model_that_gains_nothing_gets_one_picture_and_is_spared_large_batches() -> None:
    sizer = BatchSizer(32)
    asked = settle(sizer, lambda size: size * 2.0)
    assert sizer.next_size() == 1
    assert max(asked) == 4


def test_the_least_size_within_three_percent_of_the_best_is_taken() -> None:
    rates = {1: 80.0, 2: 90.0, 4: 98.0, 8: 100.0, 16: 99.0, 32: 99.0}
    sizer = BatchSizer(32)
    settle(sizer, lambda size: size / rates[size])
    assert sizer.next_size() == 4


def test_one_slow_batch_of_a_size_does_not_decide() -> None:
    first = set(range(1, 33))

    def seconds(size: int) -> float:
        is_first = size in first
        first.discard(size)
        return 60.0 if is_first else 1.0

    sizer = BatchSizer(8)
    settle(sizer, seconds)
    assert sizer.next_size() == 8


def test_one_size_that_brings_nothing_does_not_end_the_search() -> None:
    rates = {1: 10.0, 2: 10.0, 4: 20.0, 8: 20.0, 16: 20.0}
    sizer = BatchSizer(32)
    asked = settle(sizer, lambda size: size / rates[size])
    assert sizer.next_size() == 4
    assert max(asked) == 16


def test_a_bound_that_is_no_power_of_two_is_a_size_too() -> None:
    sizer = BatchSizer(6)
    assert set(settle(sizer, lambda size: 1.0)) == {1, 2, 4, 6}
    assert sizer.next_size() == 6


def test_batches_that_are_smaller_than_asked_for_settle_nothing() -> None:
    sizer = BatchSizer(8)
    for _ in range(100):
        assert sizer.next_size() <= 4
        sizer.record(min(sizer.next_size(), 3), 1.0)  # Chunks of three images.
    assert not sizer.is_settled
    settle(sizer, lambda size: 1.0)
    assert sizer.next_size() == 8


def test_what_was_settled_stays_whatever_comes_after() -> None:
    sizer = BatchSizer(4)
    settle(sizer, lambda size: 1.0)
    for _ in range(10):
        sizer.record(4, 1000.0)
    assert sizer.next_size() == 4


def test_a_batch_of_no_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        BatchSizer(0)


@given(st.integers(1, 300), st.dictionaries(st.integers(1, 300), st.floats(0, 100)))
def test_it_always_settles_on_a_size_in_bounds_about_as_fast_as_any_it_tried(
    largest: int, rates: dict[int, float]
) -> None:
    sizer = BatchSizer(largest)
    seconds = {size: max(size / max(rates.get(size, 1.0), 1e-3), 1e-9) for size in range(1, 301)}
    asked = settle(sizer, seconds.__getitem__)
    assert len(asked) == len(set(asked)) * SAMPLES
    assert 1 <= sizer.next_size() <= largest
    rate = {size: size / seconds[size] for size in asked}
    assert rate[sizer.next_size()] >= ENOUGH * max(rate.values()) * 0.999999
