"""Who is silent, and who was only not listened to."""

from __future__ import annotations

from imagedex.engine._liveness import Liveness


def test_a_worker_that_is_not_heard_for_too_long_is_silent() -> None:
    liveness = Liveness(30)
    for second in range(31):
        assert liveness.silent(100.0 + second, {"a": 100.0, "b": 100.0 + second}) == []
    assert liveness.silent(130.5, {"a": 100.0, "b": 130.0}) == ["a"]


def test_nobody_is_silent_at_the_first_look() -> None:
    assert Liveness(30).silent(1e9, {"a": 0.0}) == []


def test_after_a_pause_of_the_listener_everybody_gets_the_time_anew() -> None:
    liveness = Liveness(30)
    liveness.silent(100.0, {"a": 100.0})
    # This machine slept for an hour, or its clock was set forward.
    assert liveness.silent(3700.0, {"a": 100.0}) == []
    for second in range(1, 31):
        assert liveness.silent(3700.0 + second, {"a": 100.0}) == []
    assert liveness.silent(3731.0, {"a": 100.0, "b": 3730.0}) == ["a"]


def test_a_clock_that_is_set_back_makes_nobody_silent() -> None:
    liveness = Liveness(30)
    liveness.silent(5000.0, {"a": 5000.0})
    assert liveness.silent(1000.0, {"a": 5000.0}) == []
