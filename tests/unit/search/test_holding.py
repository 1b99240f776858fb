"""What is held is there for its time, and never more than so much."""

from __future__ import annotations

from imagedex.search.holding import Holding


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_value_is_there_until_its_time_is_over() -> None:
    clock = _Clock()
    holding = Holding[str](seconds=10, max_values=5, clock=clock)
    holding.hold(1, "one")
    clock.now = 6
    holding.hold(2, "two")
    clock.now = 9
    assert (holding.get(1), holding.get(2), holding.get(3)) == ("one", "two", None)
    clock.now = 10
    assert (holding.get(1), holding.get(2)) == (None, "two")


def test_holding_again_begins_the_time_anew() -> None:
    clock = _Clock()
    holding = Holding[str](seconds=10, max_values=5, clock=clock)
    holding.hold(1, "one")
    holding.hold(2, "two")
    clock.now = 6
    holding.hold(1, "one")
    clock.now = 12
    assert (holding.get(1), holding.get(2)) == ("one", None)


def test_too_many_values_push_out_those_held_longest_ago() -> None:
    holding = Holding[str](seconds=10, max_values=2, clock=_Clock())
    for number in (1, 2, 1, 3):
        holding.hold(number, str(number))
    assert [holding.get(number) for number in (1, 2, 3)] == ["1", None, "3"]


def test_what_is_old_is_let_go_of_without_being_asked_for() -> None:
    clock = _Clock()
    holding = Holding[str](seconds=10, max_values=5, clock=clock)
    holding.hold(1, "one")
    clock.now = 10
    holding.forget_old()
    assert len(holding._values) == 0
