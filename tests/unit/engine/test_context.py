"""The context of a worker process."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from imagedex.core.errors import ChunkStopped, EngineError
from imagedex.engine._context import ProcessContext


@pytest.fixture
def context() -> ProcessContext:
    return ProcessContext(worker_id="w", host="h", threads=3)


class Closing:
    def __init__(self, name: str, closed: list[str], error: Exception | None = None) -> None:
        self.name, self.closed, self.error = name, closed, error

    def close(self) -> None:
        self.closed.append(self.name)
        if self.error:
            raise self.error


def test_a_resource_is_made_once_however_many_threads_ask(context: ProcessContext) -> None:
    made: list[object] = []
    together = threading.Barrier(8)

    def make() -> object:
        made.append(object())
        return made[-1]

    def ask(_: int) -> object:
        together.wait(30)
        return context.resource("model", make)

    with ThreadPoolExecutor(8) as threads:
        got = list(threads.map(ask, range(8)))
    assert len(made) == 1
    assert set(map(id, got)) == {id(made[0])}


def test_a_slow_resource_does_not_hold_up_another_one(context: ProcessContext) -> None:
    slow_began, slow_may_end = threading.Event(), threading.Event()

    def make_slowly() -> str:
        slow_began.set()
        assert slow_may_end.wait(30)
        return "slow"

    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(context.resource, "slow", make_slowly)
        assert slow_began.wait(30)
        assert context.resource("fast", lambda: "fast") == "fast"
        slow_may_end.set()
        assert slow.result(30) == "slow"


def test_none_is_a_resource_like_any_other(context: ProcessContext) -> None:
    made = []
    for _ in range(2):
        assert context.resource("nothing", lambda: made.append(1)) is None
    assert made == [1]


def test_an_exception_of_make_is_passed_on_and_nothing_is_kept(context: ProcessContext) -> None:
    def fail() -> str:
        raise OSError("no such model")

    with pytest.raises(OSError, match="no such model"):
        context.resource("model", fail)
    assert context.resource("model", lambda: "second try") == "second try"


def test_resources_close_last_made_first_and_one_that_fails_stops_none(
    context: ProcessContext, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []
    context.resource("outer", lambda: Closing("outer", closed))
    context.resource("plain", lambda: "has no close method")
    context.resource("bad", lambda: Closing("bad", closed, RuntimeError("stuck")))
    context.resource("inner", lambda: Closing("inner", closed))
    with caplog.at_level(logging.ERROR):
        context.close()
        context.close()
    assert closed == ["inner", "bad", "outer"]
    assert "stuck" in caplog.text


def test_a_closed_context_makes_nothing_more(context: ProcessContext) -> None:
    context.close()
    with pytest.raises(EngineError, match="ending"):
        context.resource("model", lambda: "late")


def test_a_resource_may_ask_for_another_while_it_is_made(context: ProcessContext) -> None:
    value = context.resource("a", lambda: "a needs " + context.resource("b", lambda: "b"))
    assert value == "a needs b"


def test_a_call_tells_of_its_progress_and_not_more_often_than_is_worth_it() -> None:
    told: list[tuple[str, int, tuple[str, ...]]] = []
    context = ProcessContext(
        worker_id="w", host="h", threads=1, on_progress=lambda *news: told.append(news)
    )
    call = context.call("one")
    for images in range(1000):
        call.progress(images, [f"/{images}"])
    assert told[0] == ("one", 0, ("/0",))
    assert len(told) < 100
    context.call("two").progress(7)
    assert told[-1] == ("two", 7, ())


def test_a_call_that_is_stopped_ends_at_its_next_sign_of_progress_and_no_other_does(
    context: ProcessContext,
) -> None:
    stopped, other = context.call("stopped"), context.call("other")
    stopped.progress(1)
    context.stop("stopped")
    context.stop("yet to begin")
    with pytest.raises(ChunkStopped, match="2 of its images"):
        stopped.progress(2)
    with pytest.raises(ChunkStopped):
        context.call("yet to begin").progress(0)
    other.progress(2)


def test_stops_of_calls_that_ended_long_ago_are_forgotten(context: ProcessContext) -> None:
    for number in range(10_000):
        context.stop(f"call {number}")
    context.call("call 0").progress(1)
    assert len(context._stopped) < 1000
