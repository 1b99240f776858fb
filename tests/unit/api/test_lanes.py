"""Calls wait for calls of their own kind only, and not without bound."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest
import structlog
from anyio.from_thread import BlockingPortal

from imagedex.access import Scope
from imagedex.api.lanes import Lane, SharedReads
from imagedex.core.errors import Unavailable
from imagedex.search import Query, QueryAnswer
from imagedex.testing.application import InMemoryApplication
from support.api import ApiClient

DEADLINE_SECONDS = 60.0

P = ParamSpec("P")
T = TypeVar("T")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the end of a test whatever happens, so that no thread stays behind."""
    gate = threading.Event()
    yield gate
    gate.set()


class CountedRead:
    """A read that tells how many runs there have been, and waits while it is held."""

    def __init__(self) -> None:
        self.arguments: list[int] = []
        self.has_begun = threading.Semaphore(0)
        self.is_free = threading.Event()
        self.is_free.set()

    def __call__(self, argument: int = 0) -> int:
        self.arguments.append(argument)
        runs = len(self.arguments)
        self.has_begun.release()
        self.is_free.wait(DEADLINE_SECONDS)
        return runs


@pytest.fixture
def read() -> Iterator[CountedRead]:
    read = CountedRead()
    yield read
    read.is_free.set()


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


def ask(
    portal: BlockingPortal, reads: SharedReads, call: Callable[..., int], *arguments: int
) -> asyncio.Task[int]:
    """Begin to ask, and return once the caller stands in line."""

    async def begin() -> asyncio.Task[int]:
        task = asyncio.create_task(reads.run(call, *arguments))
        await asyncio.sleep(0)  # Runs the task up to its wait.
        return task

    return portal.call(begin)


def answers(portal: BlockingPortal, *tasks: asyncio.Task[int]) -> list[Any]:
    """Return what the callers got, errors among it."""

    async def gather() -> list[Any]:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await asyncio.gather(*tasks, return_exceptions=True)

    return portal.call(gather)


def test_equal_reads_that_wait_share_one_run(
    portal: BlockingPortal, gate: threading.Event, read: CountedRead
) -> None:
    lane = Lane("reads", threads=1, max_waiting=1)
    start(portal, lane, gate)
    reads = SharedReads(lane)
    callers = [ask(portal, reads, read) for _ in range(5)]
    gate.set()
    assert answers(portal, *callers) == [1] * 5
    assert read.arguments == [0]


def test_read_that_has_begun_is_not_joined(portal: BlockingPortal, read: CountedRead) -> None:
    reads = SharedReads(Lane("reads", threads=1, max_waiting=1))
    read.is_free.clear()
    first = ask(portal, reads, read)
    assert read.has_begun.acquire(timeout=DEADLINE_SECONDS)
    second = ask(portal, reads, read)
    read.is_free.set()
    assert answers(portal, first, second) == [1, 2]


def test_reads_with_other_arguments_are_not_shared(
    portal: BlockingPortal, gate: threading.Event, read: CountedRead
) -> None:
    lane = Lane("reads", threads=1, max_waiting=2)
    start(portal, lane, gate)
    reads = SharedReads(lane)
    callers = [ask(portal, reads, read, argument) for argument in (1, 2, 1)]
    gate.set()
    assert answers(portal, *callers) == [1, 2, 1]
    assert read.arguments == [1, 2]


def test_caller_that_leaves_does_not_take_the_answer_from_the_others(
    portal: BlockingPortal, gate: threading.Event, read: CountedRead
) -> None:
    lane = Lane("reads", threads=1, max_waiting=1)
    start(portal, lane, gate)
    reads = SharedReads(lane)
    first, second = ask(portal, reads, read), ask(portal, reads, read)
    portal.call(first.cancel)
    gate.set()
    left, answer = answers(portal, first, second)
    assert isinstance(left, asyncio.CancelledError)
    assert answer == 1


def test_read_that_failed_is_run_anew(portal: BlockingPortal) -> None:
    reads = SharedReads(Lane("reads", threads=1, max_waiting=1))
    shares = iter(["gone", "back"])

    def read() -> int:
        if next(shares) == "gone":
            raise OSError("the share is gone")
        return 7

    (error,) = answers(portal, ask(portal, reads, read))
    assert isinstance(error, OSError)
    assert answers(portal, ask(portal, reads, read)) == [7]


def test_read_that_could_not_begin_is_run_anew(portal: BlockingPortal, read: CountedRead) -> None:
    class LaneWithoutThreads(Lane):
        """Fails once as a system does that has no thread left."""

        has_failed = False

        async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
            if not self.has_failed:
                self.has_failed = True
                raise RuntimeError("can't start new thread")
            return await super().run(call, *args, **kwargs)

    reads = SharedReads(LaneWithoutThreads("reads", threads=1, max_waiting=1))
    (error,) = answers(portal, ask(portal, reads, read))
    assert isinstance(error, RuntimeError)
    assert answers(portal, ask(portal, reads, read)) == [1]


def test_calls_that_hang_on_a_share_hold_up_nothing_else(
    portal: BlockingPortal,
    client: ApiClient,
    application: InMemoryApplication,
    photos: Path,
    gate: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = threading.Semaphore(0)

    def hang(answer: T) -> Callable[..., T]:
        def call(*args: object, **options: object) -> T:
            running.release()
            gate.wait(DEADLINE_SECONDS)
            return answer

        return call

    job = application.indexing.trigger(str(photos))
    stats = application.indexing.stats()
    monkeypatch.setattr(application.indexing, "trigger", hang(job))
    monkeypatch.setattr(application.indexing, "stats", hang(stats))
    key = application.key_with(Scope.ADMIN)
    trigger = partial(client.call, "POST", "/api/v1/index/trigger", key=key)
    statuses: list[int] = []

    def send_trigger(number: int) -> None:
        answer = trigger(json={"image_dir": str(photos / str(number))})
        statuses.append(answer.status_code)

    def send_stats() -> None:
        assert client.call("GET", "/api/v1/index/stats", key=key).status_code == 200

    threads = [threading.Thread(target=send_trigger, args=(number,)) for number in range(20)]
    threads += [threading.Thread(target=send_stats) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(5):  # Four that hang, and statistics.
        assert running.acquire(timeout=DEADLINE_SECONDS)
    # Keys that nobody has shown before: each of them is looked up.
    for path in ("/api/v1/index/jobs", f"/api/v1/index/status/{job.job_id}", "/api/v1/keys"):
        fresh = application.key_with(Scope.ADMIN)
        assert client.call("GET", path, key=fresh).status_code == 200
    fresh = application.key_with(Scope.QUERY)
    answer = client.call("POST", "/api/v1/query", key=fresh, json={"text": "a dog"})
    assert answer.status_code == 200
    assert client.call("GET", "/api/v1/keys", key="wrong").status_code == 401
    assert statuses == []
    gate.set()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert statuses == [202] * 20


def test_control_calls_are_answered_while_every_query_thread_is_held(
    portal: BlockingPortal,
    client: ApiClient,
    application: InMemoryApplication,
    keys: dict[str, str],
    gate: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = threading.Semaphore(0)
    answer = application.search(Query.of_text("a dog"))

    def search(
        query: Query, *, cursor: str | None = None, index_prefix: str | None = None
    ) -> QueryAnswer:
        running.release()
        gate.wait(DEADLINE_SECONDS)
        return answer

    monkeypatch.setattr(application, "search", search)

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


def test_plain_queries_are_answered_while_every_costly_one_is_held(
    portal: BlockingPortal,
    client: ApiClient,
    application: InMemoryApplication,
    keys: dict[str, str],
    gate: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = threading.Semaphore(0)
    answer = application.search(Query.of_text("a dog"))

    def search(
        query: Query, *, cursor: str | None = None, index_prefix: str | None = None
    ) -> QueryAnswer:
        if not query.is_plain or cursor is not None:
            running.release()
            gate.wait(DEADLINE_SECONDS)
        return answer

    monkeypatch.setattr(application, "search", search)

    def send(**fields: Any) -> int:
        body = {"text": "a dog", **fields}
        return client.call("POST", "/api/v1/query", key=keys["query"], json=body).status_code

    costly = [{"filter": {"min_width": 1}}, {"top_k": 101}, {"cursor": "any"}]
    costly += [{"collapse_duplicates": True}]
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda fields=fields: statuses.append(send(**fields)))
        for fields in costly * 10
    ]
    for thread in threads:
        thread.start()
    for _ in range(4):
        assert running.acquire(timeout=DEADLINE_SECONDS)
    assert send() == 200
    assert statuses == []
    gate.set()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert statuses == [200] * 40
