"""Calls wait for calls of their own kind only, and not without bound."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
import structlog
from anyio.from_thread import BlockingPortal

from imagedex.api.lanes import Lane
from imagedex.core.errors import Unavailable
from imagedex.search.interfaces import QueryAnswer
from imagedex.testing.application import InMemoryApplication
from support.api import ApiClient

DEADLINE_SECONDS = 60.0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the end of a test whatever happens, so that no thread stays behind."""
    gate = threading.Event()
    yield gate
    gate.set()


def start(portal: BlockingPortal, lane: Lane, gate: threading.Event) -> Future[bool]:
    return portal.start_task_soon(lane.run, gate.wait, DEADLINE_SECONDS)


def test_result_and_error_of_the_call_come_back(portal: BlockingPortal) -> None:
    lane = Lane("calls", threads=1, max_waiting=0)

    async def divide(by: int) -> float:
        return await lane.run(lambda: 1 / by)

    assert portal.call(divide, 2) == 0.5
    with pytest.raises(ZeroDivisionError):
        portal.call(divide, 0)
    assert portal.call(divide, 1) == 1.0


def test_call_runs_in_another_thread_with_the_context_of_its_request(
    portal: BlockingPortal,
) -> None:
    lane = Lane("calls", threads=1, max_waiting=0)

    async def look() -> tuple[bool, object]:
        loop_thread = threading.get_ident()
        with structlog.contextvars.bound_contextvars(request_id="r1"):
            return await lane.run(
                lambda: (
                    threading.get_ident() != loop_thread,
                    structlog.contextvars.get_contextvars()["request_id"],
                )
            )

    assert portal.call(look) == (True, "r1")


def test_lane_that_is_full_refuses_at_once_and_recovers(
    portal: BlockingPortal, gate: threading.Event
) -> None:
    lane = Lane("queries", threads=1, max_waiting=2)
    calls = [start(portal, lane, gate) for _ in range(3)]

    async def one_more() -> int:
        return await lane.run(int)

    with pytest.raises(Unavailable, match="3 queries"):
        portal.call(one_more)
    gate.set()
    assert [call.result(DEADLINE_SECONDS) for call in calls] == [True] * 3
    assert portal.call(one_more) == 0


def test_request_that_is_cancelled_while_it_waits_gives_its_place_back(
    portal: BlockingPortal, gate: threading.Event
) -> None:
    lane = Lane("queries", threads=1, max_waiting=1)
    running = start(portal, lane, gate)
    waiting = start(portal, lane, gate)
    waiting.cancel()

    async def one_more() -> int:
        return await lane.run(int)

    gate.set()
    assert running.result(DEADLINE_SECONDS) is True
    assert portal.call(one_more) == 0


def test_control_calls_are_answered_while_every_query_thread_is_held(
    portal: BlockingPortal,
    client: ApiClient,
    application: InMemoryApplication,
    keys: dict[str, str],
    gate: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = threading.Semaphore(0)
    answer = application.query("a dog")

    def query(text: str, *, top_k: int = 10, index_prefix: str | None = None) -> QueryAnswer:
        running.release()
        gate.wait(DEADLINE_SECONDS)
        return answer

    monkeypatch.setattr(application, "query", query)

    def send_query() -> int:
        return client.call(
            "POST", "/api/v1/query", key=keys["query"], json={"text": "a dog"}
        ).status_code

    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(send_query())) for _ in range(40)]
    for thread in threads:
        thread.start()
    # Two run on every machine; the others stand in line behind them.
    assert running.acquire(timeout=DEADLINE_SECONDS)
    assert running.acquire(timeout=DEADLINE_SECONDS)
    for path in ("/api/v1/index/jobs", "/api/v1/index/stats"):
        assert client.call("GET", path, key=keys["index"]).status_code == 200
    assert client.call("GET", "/health").status_code == 200
    assert client.call("GET", "/health/ready").status_code == 200
    assert statuses == []
    gate.set()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert statuses == [200] * 40
