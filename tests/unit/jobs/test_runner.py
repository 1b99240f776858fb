from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from imagedex.core.errors import (
    CorruptIndex,
    EngineError,
    ImagedexError,
    LeaseLost,
    StorageError,
    Unavailable,
)
from imagedex.database import Database
from imagedex.jobs import (
    Handler,
    Job,
    JobCancelled,
    JobKind,
    JobRun,
    JobRunner,
    JobStatus,
    JobYielded,
    Lane,
    Lease,
    Priority,
    SqlJobStore,
)
from imagedex.testing.job_store import ManualClock, make_done, make_new_job, make_plan

_DEADLINE_SECONDS = 30.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.005)


def run_until_told(run: JobRun) -> None:
    """Do nothing, with a chunk boundary every few milliseconds."""
    while True:
        run.checkpoint()
        time.sleep(0.005)


def waiting_for(event: threading.Event) -> Handler:
    """Return a handler that hangs until the event, without a chunk boundary."""

    def handler(run: JobRun) -> None:
        assert event.wait(2 * _DEADLINE_SECONDS)

    return handler


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    return sqlite_database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(database: Database, clock: ManualClock) -> SqlJobStore:
    return SqlJobStore(database, lease_seconds=10, now=clock)


@pytest.fixture
def index_id(index_ids: tuple[int, int]) -> int:
    return index_ids[0]


@pytest.fixture(autouse=True)
def logs() -> Iterator[Sequence[MutableMapping[str, Any]]]:
    with capture_logs() as logs:
        yield logs


class Runners:
    """Starts runners, and closes them at the end of a test."""

    def __init__(self, store: SqlJobStore, stack: ExitStack) -> None:
        self._store = store
        self._stack = stack

    def start(self, handler: Handler, *, owner: str = "test", threads: int = 1) -> JobRunner:
        runner = JobRunner(
            self._store,
            {JobKind.FULL: handler, JobKind.REBUILD: handler},
            owner=owner,
            threads=threads,
            poll_seconds=0.02,
        )
        runner.start()
        self._stack.callback(runner.close)
        return runner


@pytest.fixture
def runners(store: SqlJobStore) -> Iterator[Runners]:
    with ExitStack() as stack:
        yield Runners(store, stack)


def wait_until(store: SqlJobStore, job: Job, status: JobStatus) -> Job:
    wait_for(lambda: store.get(job.job_id).status is status)
    return store.get(job.job_id)


def test_a_handler_that_returns_completes_its_job(
    store: SqlJobStore, runners: Runners, index_id: int
) -> None:
    seen: list[Lease] = []
    runners.start(lambda run: seen.append(run.lease))
    job = store.submit(make_new_job(index_id))
    assert wait_until(store, job, JobStatus.COMPLETED).error is None
    assert [(lease.job.job_id, lease.owner) for lease in seen] == [(job.job_id, "test")]


def test_a_submission_wakes_a_runner_that_polls_seldom(store: SqlJobStore, index_id: int) -> None:
    runner = JobRunner(
        store, {JobKind.FULL: lambda run: None}, owner="test", threads=1, poll_seconds=3600
    )
    runner.start()
    try:
        for number in range(20):
            job = store.submit(make_new_job(index_id, str(number)))
            wait_until(store, job, JobStatus.COMPLETED)
    finally:
        assert runner.close()


def test_a_cancelled_job_stops_at_its_next_chunk(
    store: SqlJobStore, runners: Runners, index_id: int
) -> None:
    runners.start(run_until_told)
    job = store.submit(make_new_job(index_id))
    wait_until(store, job, JobStatus.RUNNING)
    store.request_cancel(job.job_id)
    assert wait_until(store, job, JobStatus.CANCELLED).finished_at is not None


def test_a_job_of_higher_priority_goes_between(
    store: SqlJobStore, runners: Runners, index_id: int
) -> None:
    order: list[Priority] = []
    may_end = threading.Event()

    def handler(run: JobRun) -> None:
        order.append(run.lease.job.priority)
        while run.lease.job.priority is Priority.LOW and not may_end.is_set():
            run.checkpoint()
            time.sleep(0.005)

    runners.start(handler)
    low = store.submit(make_new_job(index_id, "low", priority=Priority.LOW))
    wait_until(store, low, JobStatus.RUNNING)
    high = store.submit(make_new_job(index_id, "high", priority=Priority.HIGH))
    wait_until(store, high, JobStatus.COMPLETED)
    may_end.set()
    wait_until(store, low, JobStatus.COMPLETED)
    assert order == [Priority.LOW, Priority.HIGH, Priority.LOW]
    assert store.attempts_without_progress(low.job_id) == 0


def test_an_error_that_cannot_pass_fails_the_job_with_its_text(
    store: SqlJobStore, runners: Runners, index_id: int
) -> None:
    def handler(run: JobRun) -> None:
        raise CorruptIndex("Segment 4 is not what its manifest says; restore it.")

    runners.start(handler)
    job = store.submit(make_new_job(index_id))
    failed = wait_until(store, job, JobStatus.FAILED)
    assert failed.error == "Segment 4 is not what its manifest says; restore it."


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (EngineError("The worker died."), "The worker died."),
        (KeyError("size"), "Unexpected KeyError: 'size'"),
        (SystemExit(3), "Unexpected SystemExit: 3"),
    ],
)
def test_an_error_that_can_pass_is_tried_again_later_and_fails_in_the_end(
    store: SqlJobStore,
    runners: Runners,
    clock: ManualClock,
    index_id: int,
    error: BaseException,
    text: str,
) -> None:
    calls: list[float] = []

    def handler(run: JobRun) -> None:
        calls.append(clock())
        raise error

    runners.start(handler)
    began = clock()
    job = store.submit(make_new_job(index_id))
    for attempts in range(1, 5):
        wait_for(lambda n=attempts: store.attempts_without_progress(job.job_id) == n)  # type: ignore[misc]
        waiting = store.get(job.job_id)
        assert (waiting.status, waiting.error) == (JobStatus.QUEUED, text)
        clock.advance(2.0**attempts)
    failed = wait_until(store, job, JobStatus.FAILED)
    assert failed.error == f"{text} (given up after 5 attempts in a row)"
    assert [call - began for call in calls] == [0, 2, 6, 14, 30]


@pytest.mark.parametrize(
    "error", [StorageError("The disk is full."), Unavailable("The share is away.")]
)
def test_an_outage_is_waited_for_a_quarter_of_an_hour(
    store: SqlJobStore, runners: Runners, clock: ManualClock, index_id: int, error: ImagedexError
) -> None:
    calls: list[float] = []

    def handler(run: JobRun) -> None:
        calls.append(clock())
        raise error

    runners.start(handler)
    began = clock()
    job = store.submit(make_new_job(index_id))
    for attempts in range(1, 20):
        wait_for(lambda n=attempts: store.attempts_without_progress(job.job_id) == n)  # type: ignore[misc]
        waiting = store.get(job.job_id)
        assert (waiting.status, waiting.error) == (JobStatus.QUEUED, str(error))
        clock.advance(min(60.0, 2.0**attempts))
    failed = wait_until(store, job, JobStatus.FAILED)
    assert failed.error == f"{error} (given up after 20 attempts in a row)"
    assert [call - began for call in calls[:7]] == [0, 2, 6, 14, 30, 62, 122]
    assert (len(calls), calls[-1] - began) == (20, 902)


def test_the_first_error_after_many_crashes_does_not_fail_a_job(
    store: SqlJobStore, runners: Runners, clock: ManualClock, index_id: int
) -> None:
    job = store.submit(make_new_job(index_id))
    for crashes in range(6):
        assert store.lease_next("killed") is not None
        clock.advance(10)
        if crashes:  # The first takeover is immediate; each later one waits out a back-off.
            assert store.lease_next("killed") is None
            clock.advance(60)

    def handler(run: JobRun) -> None:
        raise EngineError("The worker died.")

    runners.start(handler)
    wait_for(lambda: store.attempts_without_progress(job.job_id) == 1)
    assert store.get(job.job_id).status is JobStatus.QUEUED


def test_a_job_that_is_notified_again_while_it_runs_runs_twice(
    store: SqlJobStore,
    runners: Runners,
    index_id: int,
    logs: Sequence[MutableMapping[str, Any]],
) -> None:
    content = ["old"]
    read: list[str] = []
    has_read, may_end = threading.Event(), threading.Event()

    def handler(run: JobRun) -> None:
        assert not run.lease.job.is_planned
        read.append(content[0])
        plan = make_plan("/1")
        store.save_plan(run.lease, plan, total_images=1, settled_images=0, failures=())
        has_read.set()
        assert may_end.wait(_DEADLINE_SECONDS)

    runner = runners.start(handler)
    job = store.submit(make_new_job(index_id))
    assert has_read.wait(_DEADLINE_SECONDS)
    content[0] = "new"
    assert store.submit(make_new_job(index_id)).job_id == job.job_id
    may_end.set()
    wait_until(store, job, JobStatus.COMPLETED)
    assert runner.close()  # Its last line is logged after the job has ended.
    assert read == ["old", "new"]
    runs = [(log["event"], log["job_id"]) for log in logs if log["event"].startswith("job_")]
    events = ["job_started", "job_requeued", "job_started", "job_ended"]
    assert runs == [(event, job.job_id) for event in events]


def test_an_unforeseen_error_is_logged_with_its_traceback(
    store: SqlJobStore,
    runners: Runners,
    index_id: int,
    logs: Sequence[MutableMapping[str, Any]],
) -> None:
    def handler(run: JobRun) -> None:
        raise KeyError("size")

    runners.start(handler)
    job = store.submit(make_new_job(index_id))
    wait_for(lambda: store.attempts_without_progress(job.job_id) == 1)
    (entry,) = [entry for entry in logs if entry["event"] == "job_raised"]
    assert (entry["job_id"], entry["exc_info"]) == (job.job_id, True)


def test_progress_between_errors_keeps_a_job_alive(
    store: SqlJobStore, database: Database, runners: Runners, clock: ManualClock, index_id: int
) -> None:
    chunks = 8

    def handler(run: JobRun) -> None:
        if not run.lease.job.is_planned:
            plan = make_plan(*(f"/{number}" for number in range(chunks)))
            store.save_plan(run.lease, plan, total_images=chunks, settled_images=0, failures=())
        number = store.get(run.lease.job.job_id).processed_images
        with database.transaction() as transaction:
            store.checkpoint_embedded(transaction, run.lease, make_done(number, indexed=1))
        if number + 1 < chunks:
            raise Unavailable("The share is away.")

    runners.start(handler)
    job = store.submit(make_new_job(index_id))
    for done in range(1, chunks):
        wait_for(lambda n=done: store.get(job.job_id).processed_images == n)  # type: ignore[misc]
        wait_until(store, job, JobStatus.QUEUED)
        assert store.attempts_without_progress(job.job_id) == 1
        clock.advance(2)
    wait_until(store, job, JobStatus.COMPLETED)


def test_a_runner_goes_on_after_a_job_whose_lease_was_lost(
    store: SqlJobStore, runners: Runners, index_ids: tuple[int, int]
) -> None:
    def handler(run: JobRun) -> None:
        if run.lease.job.index_id == index_ids[0]:
            raise LeaseLost("A newer fence has published.")

    runners.start(handler)
    lost = store.submit(make_new_job(index_ids[0]))
    job = store.submit(make_new_job(index_ids[1]))
    wait_until(store, lost, JobStatus.RUNNING)
    wait_until(store, job, JobStatus.COMPLETED)
    assert store.get(lost.job_id).status is JobStatus.RUNNING


def test_a_run_whose_job_was_taken_over_stops_and_writes_nothing(
    store: SqlJobStore, runners: Runners, clock: ManualClock, index_id: int
) -> None:
    stopped = threading.Event()

    def handler(run: JobRun) -> None:
        try:
            run_until_told(run)
        except LeaseLost:
            stopped.set()
            raise

    runner = runners.start(handler)
    job = store.submit(make_new_job(index_id))
    wait_until(store, job, JobStatus.RUNNING)
    clock.advance(10)
    lease = store.lease_next("other")
    assert lease is not None
    assert stopped.wait(_DEADLINE_SECONDS)
    assert runner.close()
    store.renew(lease)
    assert store.get(job.job_id).status is JobStatus.RUNNING


def test_a_run_that_nobody_renews_knows_when_its_lease_has_lapsed(
    store: SqlJobStore, index_id: int
) -> None:
    store.submit(make_new_job(index_id))
    lease = store.lease_next("test")
    assert lease is not None
    monotonic = ManualClock(0.0)
    run = JobRun(store, lease, closing=threading.Event(), monotonic=monotonic)
    monotonic.advance(9)
    run.renew()
    monotonic.advance(9.5)
    run.checkpoint()
    monotonic.advance(0.5)
    with pytest.raises(LeaseLost, match="not renewed in time"):
        run.checkpoint()


def test_rebuilds_of_many_indexes_leave_a_thread_to_other_jobs(
    store: SqlJobStore, index_ids: tuple[int, int], runners: Runners
) -> None:
    over = threading.Event()
    rebuilt: list[str] = []

    def handler(run: JobRun) -> None:
        if run.lease.job.kind is JobKind.REBUILD:
            rebuilt.append(run.lease.job.job_id)
            assert over.wait(_DEADLINE_SECONDS)

    runners.start(handler, threads=2)
    for index_id in index_ids:
        store.submit(replace(make_new_job(index_id, "rebuild"), kind=JobKind.REBUILD))
    wait_for(lambda: len(rebuilt) == 1)
    wait_until(store, store.submit(make_new_job(index_ids[0])), JobStatus.COMPLETED)
    assert len(rebuilt) == 1
    over.set()
    wait_for(lambda: len(rebuilt) == 2)


def test_work_that_would_begin_anew_makes_way_for_no_other_job_but_can_be_cancelled(
    store: SqlJobStore, index_id: int
) -> None:
    store.submit(make_new_job(index_id, "a"))
    lease = store.lease_next("test")
    assert lease is not None
    run = JobRun(store, lease, closing=threading.Event())
    store.submit(make_new_job(index_id, "b", priority=Priority.HIGH))
    with pytest.raises(JobYielded, match="higher priority"):
        run.checkpoint()
    run.require_going_on()
    store.request_cancel(lease.job.job_id)
    with pytest.raises(JobCancelled):
        run.require_going_on()


def test_a_run_stops_for_a_closing_runner_and_for_a_cancellation(
    store: SqlJobStore, index_id: int
) -> None:
    store.submit(make_new_job(index_id))
    lease = store.lease_next("test")
    assert lease is not None
    closing = threading.Event()
    run = JobRun(store, lease, closing=closing)
    run.checkpoint()
    store.request_cancel(lease.job.job_id)
    with pytest.raises(JobCancelled):
        run.checkpoint()
    closing.set()
    with pytest.raises(JobYielded, match="closing"):
        run.checkpoint()


def test_leases_are_renewed_while_a_handler_is_busy(database: Database, index_id: int) -> None:
    store = SqlJobStore(database, lease_seconds=0.3)
    may_end = threading.Event()
    # One thread, so that nobody takes the job over should this machine stand still for a while.
    runner = JobRunner(store, {JobKind.FULL: waiting_for(may_end)}, owner="a", threads=1)
    runner.start()
    try:
        job = store.submit(make_new_job(index_id))
        wait_until(store, job, JobStatus.RUNNING)
        renewals = _count_renewals(database, job, at_least=3)
        assert len(renewals) >= 3
        may_end.set()
        wait_until(store, job, JobStatus.COMPLETED)
    finally:
        may_end.set()
        runner.close()


def _count_renewals(database: Database, job: Job, *, at_least: int) -> set[float]:
    """Watch the moment at which the job's lease ends until it has moved."""
    moments: set[float] = set()

    def look() -> bool:
        with database.read() as snapshot:
            query = "SELECT lease_until FROM jobs WHERE job_id = ?"
            moments.add(snapshot.connection.exec_driver_sql(query, (job.job_id,)).scalar_one())
        return len(moments) >= at_least

    wait_for(look)
    return moments


def test_a_closing_runner_gives_its_job_back_for_the_next_one(
    store: SqlJobStore, runners: Runners, index_id: int
) -> None:
    first = runners.start(run_until_told, owner="first")
    job = store.submit(make_new_job(index_id))
    wait_until(store, job, JobStatus.RUNNING)
    assert first.close()
    assert store.get(job.job_id).status is JobStatus.QUEUED
    assert store.attempts_without_progress(job.job_id) == 0
    runners.start(lambda run: None, owner="second")
    wait_until(store, job, JobStatus.COMPLETED)


def test_closing_does_not_wait_for_ever_for_a_handler_that_hangs(
    store: SqlJobStore, runners: Runners, index_id: int
) -> None:
    may_end = threading.Event()
    runner = runners.start(waiting_for(may_end))
    job = store.submit(make_new_job(index_id))
    wait_until(store, job, JobStatus.RUNNING)
    assert not runner.close(timeout_seconds=0.05)
    may_end.set()
    assert runner.close()


def test_a_runner_that_was_never_started_can_be_closed(store: SqlJobStore) -> None:
    assert JobRunner(store, {}, owner="test").close()


def test_a_runner_outlives_a_store_that_fails(
    database: Database, clock: ManualClock, index_id: int
) -> None:
    class FailingStore(SqlJobStore):
        refusals = 3

        def lease_next(self, owner: str, lanes: Collection[Lane] = tuple(Lane)) -> Lease | None:
            if self.refusals > 0:
                self.refusals -= 1
                raise StorageError("The disk is full.")
            return super().lease_next(owner, lanes)

    store = FailingStore(database, lease_seconds=10, now=clock)
    job = store.submit(make_new_job(index_id))
    with ExitStack() as stack:
        Runners(store, stack).start(lambda run: None)
        wait_until(store, job, JobStatus.COMPLETED)


def test_two_threads_run_jobs_of_two_indexes_at_once(
    store: SqlJobStore, runners: Runners, index_ids: tuple[int, int]
) -> None:
    both = threading.Barrier(2, timeout=_DEADLINE_SECONDS)

    def handler(run: JobRun) -> None:
        both.wait()

    runners.start(handler, threads=2)
    jobs = [store.submit(make_new_job(index_id)) for index_id in index_ids]
    for job in jobs:
        wait_until(store, job, JobStatus.COMPLETED)


def test_a_watcher_sees_a_cancellation_and_bears_what_a_database_can_do(
    database: Database, index_ids: tuple[int, int]
) -> None:
    store = SqlJobStore(database)
    job = store.submit(make_new_job(index_ids[0]))
    lease = store.lease_next("a")
    assert lease is not None
    run = JobRun(store, lease, closing=threading.Event())
    assert not run.is_cancelled()
    store.request_cancel(job.job_id)
    assert run.is_cancelled()
    store.finish(lease, JobStatus.CANCELLED, None)
    assert not run.is_cancelled()  # It is not ours any more.


def test_threads_that_wait_or_run_a_long_job_are_not_stalled(
    store: SqlJobStore, index_id: int
) -> None:
    clock, may_end = ManualClock(), threading.Event()
    runner = JobRunner(
        store,
        {JobKind.FULL: waiting_for(may_end)},
        owner="test",
        threads=1,
        poll_seconds=0.02,
        monotonic=clock,
    )
    assert runner.stalled_threads(0.0) == []  # Nothing has begun.
    runner.start()
    try:
        assert runner.stalled_threads(30.0) == []
        job = store.submit(make_new_job(index_id))
        wait_until(store, job, JobStatus.RUNNING)
        # The renewer has moved at the beginning and will in a third of the lease's 10 s.
        clock.advance(30.0)
        assert runner.stalled_threads(30.0) == []
        clock.advance(5.0)
        assert runner.stalled_threads(30.0) == ["job-renewer"]
    finally:
        may_end.set()
        runner.close()
    assert runner.stalled_threads(0.0) == []


def test_a_thread_whose_look_for_a_job_never_ends_is_stalled(
    database: Database, clock: ManualClock, index_id: int
) -> None:
    may_go_on, looked = threading.Event(), threading.Event()

    class HangingStore(SqlJobStore):
        def lease_next(self, owner: str, lanes: Collection[Lane] = tuple(Lane)) -> Lease | None:
            looked.set()
            assert may_go_on.wait(2 * _DEADLINE_SECONDS)
            return None

    store = HangingStore(database, lease_seconds=10, now=clock)
    runner = JobRunner(store, {}, owner="test", threads=1, poll_seconds=0.02, monotonic=clock)
    runner.start()
    try:
        assert looked.wait(_DEADLINE_SECONDS)
        assert runner.stalled_threads(1.0) == []
        clock.advance(2.0)
        assert runner.stalled_threads(1.0) == ["job-runner-0"]
        may_go_on.set()
        wait_for(lambda: runner.stalled_threads(1.0) == [])
    finally:
        may_go_on.set()
        runner.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_is_stalled(database: Database, clock: ManualClock) -> None:
    class DeadlyStore(SqlJobStore):
        def lease_next(self, owner: str, lanes: Collection[Lane] = tuple(Lane)) -> Lease | None:
            raise SystemExit

    store = DeadlyStore(database, lease_seconds=10, now=clock)
    runner = JobRunner(store, {}, owner="test", threads=1)
    runner.start()
    try:
        wait_for(lambda: runner.stalled_threads(60.0) == ["job-runner-0"])
    finally:
        runner.close()
