"""Random sequences of operations on the job store, beside a plain model of what it should say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from imagedex.catalog import SqlCatalog
from imagedex.core.errors import Conflict, LeaseLost
from imagedex.database import Database
from imagedex.jobs import ChunkState, JobStatus, Lease, SqlJobStore
from imagedex.testing.job_store import ManualClock, make_done, make_new_job, make_plan

_ACTIVE = {JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.PAUSED}
_LEASE_SECONDS = 10.0


@dataclass
class ModelChunk:
    paths: tuple[str, ...]
    state: ChunkState = ChunkState.PLANNED


@dataclass
class ModelJob:
    key: str
    status: JobStatus = JobStatus.QUEUED
    cancel_requested: bool = False
    rerun_requested: bool = False
    crashes: int = 0
    attempts: int = 0
    next_chunk: int = 0
    lease: Lease | None = None
    lease_until: float = 0.0
    is_planned: bool = False
    chunks: dict[int, ModelChunk] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)  # Chunk in which each path failed.
    retrying: dict[str, int] = field(default_factory=dict)  # Chunk that is to try it again.

    @property
    def total(self) -> int:
        return len({path for chunk in self.chunks.values() for path in chunk.paths})

    @property
    def processed(self) -> int:
        pending = {
            path
            for chunk in self.chunks.values()
            if chunk.state is ChunkState.PLANNED
            for path in chunk.paths
        }
        return self.total - len(pending)


class JobStoreMachine(RuleBasedStateMachine):
    """Two kinds of requests for one index, any number of owners, dying at any time."""

    def __init__(self, database_of: Callable[[], Database]) -> None:
        super().__init__()
        self.database = database_of()
        self.clock = ManualClock()
        self.store = SqlJobStore(self.database, lease_seconds=_LEASE_SECONDS, now=self.clock)
        self.index_id = SqlCatalog(self.database).ensure_index(Path("/index")).index_id
        self.jobs: dict[str, ModelJob] = {}
        self.stale: list[Lease] = []
        self.fence = 0

    def teardown(self) -> None:
        self.database.close()

    def running(self) -> ModelJob | None:
        jobs = [job for job in self.jobs.values() if job.status is JobStatus.RUNNING]
        assert len(jobs) <= 1
        return jobs[0] if jobs else None

    def has_running(self) -> bool:
        return self.running() is not None

    def held(self) -> tuple[str, ModelJob, Lease]:
        job = self.running()
        assert job is not None
        assert job.lease is not None
        return job.lease.job.job_id, job, job.lease

    def end_lease(self, job: ModelJob, status: JobStatus) -> None:
        assert job.lease is not None
        self.stale.append(job.lease)
        job.lease = None
        job.status = status
        if status.is_final:
            job.rerun_requested = False

    @rule(key=st.sampled_from("xy"))
    def submit(self, key: str) -> None:
        self.clock.advance(0.001)  # Jobs of one moment go by their ids, which are random.
        job_id = self.store.submit(make_new_job(self.index_id, key)).job_id
        active = [i for i, job in self.jobs.items() if job.key == key and job.status in _ACTIVE]
        if active:
            assert [job_id] == active
            job = self.jobs[job_id]
            job.rerun_requested |= job.status is JobStatus.RUNNING or job.is_planned
        else:
            assert job_id not in self.jobs
            self.jobs[job_id] = ModelJob(key)

    @rule(seconds=st.sampled_from([1.0, 11.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def lease(self) -> None:
        # Long enough for every back-off, so that the model need not know of them.
        job = self.running()
        if job is not None and job.lease_until <= self.clock():
            if job.cancel_requested:
                self.end_lease(job, JobStatus.CANCELLED)
            else:
                job.crashes += 1
                self.end_lease(job, JobStatus.QUEUED if job.crashes < 10 else JobStatus.FAILED)
            if self.store.lease_next("nobody") is not None:
                self.adopt_running()
                return
        self.clock.advance(0 if self.has_running() else 60)
        lease = self.store.lease_next("owner")
        waiting = [job for job in self.jobs.values() if job.status is JobStatus.QUEUED]
        assert (lease is not None) == (bool(waiting) and not self.has_running())
        if lease is not None:
            self.adopt_running()

    def adopt_running(self) -> None:
        """Take what the store has leased last for the running job."""
        page = self.store.list_jobs(status=JobStatus.RUNNING, limit=9, cursor=None)
        (running,) = page.items
        job = self.jobs[running.job_id]
        assert job.status is JobStatus.QUEUED
        self.fence += 1
        for owner in ("owner", "nobody"):
            lease = Lease(running, owner, self.fence)
            try:
                self.store.is_cancel_requested(lease)
            except LeaseLost:
                continue
            job.lease = lease
        assert job.lease is not None
        job.status = JobStatus.RUNNING
        job.lease_until = self.clock() + _LEASE_SECONDS

    @precondition(has_running)
    @rule(sizes=st.lists(st.integers(1, 3), max_size=4))
    def plan(self, sizes: list[int]) -> None:
        _job_id, job, lease = self.held()
        if job.is_planned:
            return
        job.chunks = {
            number: ModelChunk(tuple(f"/{number}/{row}" for row in range(size)))
            for number, size in enumerate(sizes, job.next_chunk)
        }
        chunks = make_plan(*(" ".join(chunk.paths) for chunk in job.chunks.values()))
        self.store.save_plan(lease, chunks, total_images=sum(sizes), settled_images=0, failures=())
        job.next_chunk += len(sizes)
        job.is_planned = True
        job.crashes = job.attempts = 0

    @precondition(has_running)
    @rule(number=st.integers(0, 6), failing=st.integers(0, 3))
    def embed(self, number: int, failing: int) -> None:
        _job_id, job, lease = self.held()
        number += min(job.chunks, default=0)  # A job that runs again goes on counting.
        chunk = job.chunks.get(number)
        if chunk is None:
            return
        failed = chunk.paths[:failing]
        done = make_done(number, indexed=len(chunk.paths) - len(failed), failed=" ".join(failed))
        with self.database.transaction() as transaction:
            self.store.checkpoint_embedded(transaction, lease, done)
        if chunk.state is not ChunkState.PLANNED:
            return
        chunk.state = ChunkState.EMBEDDED
        job.retrying = {path: n for path, n in job.retrying.items() if n != number}
        job.failed.update(dict.fromkeys(failed, number))
        job.crashes = job.attempts = 0
        job.lease_until = self.clock() + _LEASE_SECONDS

    @precondition(has_running)
    @rule(numbers=st.sets(st.integers(0, 6)))
    def commit(self, numbers: set[int]) -> None:
        job_id, job, _lease = self.held()
        first = min(job.chunks, default=0)
        embedded = [
            number
            for number, chunk in job.chunks.items()
            if number - first in numbers and chunk.state is not ChunkState.PLANNED
        ]
        with self.database.transaction() as transaction:
            self.store.checkpoint_committed(transaction, job_id, embedded)
        for number in embedded:
            if job.chunks[number].state is ChunkState.EMBEDDED:
                job.crashes = job.attempts = 0
            job.chunks[number].state = ChunkState.COMMITTED

    @precondition(has_running)
    @rule(numbers=st.sets(st.integers(0, 6)))
    def lose_parts(self, numbers: set[int]) -> None:
        _job_id, job, lease = self.held()
        first = min(job.chunks, default=0)
        numbers = {first + number for number in numbers}
        self.store.replan_chunks(lease, sorted(numbers))
        for number, chunk in job.chunks.items():
            if number in numbers and chunk.state is ChunkState.EMBEDDED:
                chunk.state = ChunkState.PLANNED
                back = {path: n for path, n in job.failed.items() if n == number}
                job.retrying.update(back)
                job.failed = {path: n for path, n in job.failed.items() if n != number}

    @precondition(has_running)
    @rule(count_attempt=st.booleans())
    def requeue(self, count_attempt: bool) -> None:
        _job_id, job, lease = self.held()
        self.store.requeue(lease, error="x", delay_seconds=5, count_attempt=count_attempt)
        if not job.cancel_requested:
            job.attempts += count_attempt
        self.end_lease(job, JobStatus.CANCELLED if job.cancel_requested else JobStatus.QUEUED)

    @precondition(has_running)
    @rule(status=st.sampled_from([JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]))
    def finish(self, status: JobStatus) -> None:
        _job_id, job, lease = self.held()
        ended = status
        if status is JobStatus.COMPLETED and job.rerun_requested:
            ended = JobStatus.CANCELLED if job.cancel_requested else JobStatus.QUEUED
        assert self.store.finish(lease, status, None).status is ended
        self.end_lease(job, ended)
        if ended is JobStatus.QUEUED:
            job.rerun_requested = job.is_planned = False
            job.crashes = job.attempts = 0
            job.chunks, job.failed, job.retrying = {}, {}, {}

    @precondition(lambda self: bool(self.jobs))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(list(self.jobs)))
        job = self.jobs[job_id]
        if job.status in (JobStatus.COMPLETED, JobStatus.FAILED):
            with pytest.raises(Conflict):
                self.store.request_cancel(job_id)
            return
        self.store.request_cancel(job_id)
        if job.status is JobStatus.CANCELLED:
            return
        job.cancel_requested = True
        if job.status is not JobStatus.RUNNING:
            job.status = JobStatus.CANCELLED
            job.rerun_requested = False

    @precondition(lambda self: bool(self.jobs))
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(list(self.jobs)))
        job = self.jobs[job_id]
        has_twin = any(
            other.key == job.key and other.status in _ACTIVE for other in self.jobs.values()
        )
        if has_twin or (job.status is JobStatus.COMPLETED and not job.failed):
            with pytest.raises(Conflict):
                self.store.retry(job_id)
            return
        self.store.retry(job_id)
        size = max((len(chunk.paths) for chunk in job.chunks.values()), default=1)
        paths = sorted(job.failed)
        for start in range(0, len(paths), size):
            number = job.next_chunk
            job.next_chunk += 1
            job.chunks[number] = ModelChunk(tuple(paths[start : start + size]))
            job.retrying.update(dict.fromkeys(job.chunks[number].paths, number))
        job.failed = {}
        job.status = JobStatus.QUEUED
        job.cancel_requested = False
        job.crashes = job.attempts = 0

    @precondition(lambda self: bool(self.stale))
    @rule(data=st.data())
    def stale_owner_writes(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.stale))
        with pytest.raises(LeaseLost):
            self.store.finish(lease, JobStatus.COMPLETED, None)

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        for job_id, job in self.jobs.items():
            stored = self.store.get(job_id)
            assert stored.status is job.status
            assert stored.cancel_requested is job.cancel_requested
            assert stored.total_images == job.total
            assert stored.processed_images == job.processed
            assert stored.failed_images == len(job.failed)
            assert self.store.attempts_without_progress(job_id) == job.attempts
            page = self.store.failures(job_id, limit=100, cursor=None)
            listed = [failure.image_path for failure in page.items]
            assert listed == sorted({**job.failed, **job.retrying})
            for state in ChunkState:
                numbers = [chunk.number for chunk in self.store.chunks(job_id, state)]
                assert numbers == [n for n, c in job.chunks.items() if c.state is state]


@pytest.fixture
def database_of(tmp_path: Path, sqlite_template: Path) -> Callable[[], Database]:
    """A maker of fresh databases; each example needs one."""
    numbers = iter(range(1_000_000))

    def make() -> Database:
        path = tmp_path / f"{next(numbers)}.db"
        shutil.copy(sqlite_template, path)
        return Database(f"sqlite:///{path}")

    return make


def test_any_sequence_of_operations_leaves_what_the_model_says(
    database_of: Callable[[], Database],
) -> None:
    class Machine(JobStoreMachine):
        def __init__(self) -> None:
            super().__init__(database_of)

    run_machine(
        Machine,
        settings=settings(max_examples=10, stateful_step_count=25, deadline=None),
    )
