"""What every job store must do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from imagedex.core.errors import Conflict, InvalidRequest, LeaseLost, NotFound
from imagedex.core.images import FailureReason, ImageFailure
from imagedex.database import Database
from imagedex.jobs import (
    ChunkAction,
    ChunkDone,
    ChunkState,
    IdempotencyKey,
    Job,
    JobKind,
    JobStatus,
    JobStore,
    Lane,
    Lease,
    NewJob,
    PlannedChunk,
    Priority,
    ScanFindings,
)


class ManualClock:
    """A clock that stands until it is moved."""

    def __init__(self, seconds: float = 1_763_123_696.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Move on."""
        self.seconds += seconds


def make_new_job(
    index_id: int, dedupe_key: str = "request", *, priority: Priority = Priority.NORMAL
) -> NewJob:
    """Return a job to submit."""
    return NewJob(index_id, JobKind.FULL, {"image_dir": "/photos"}, priority, dedupe_key)


def make_plan(*chunks: str) -> list[PlannedChunk]:
    """Return chunks to embed, each given as its paths with spaces between."""
    return [PlannedChunk(ChunkAction.EMBED, tuple(chunk.split())) for chunk in chunks]


def make_failures(paths: str) -> tuple[ImageFailure, ...]:
    """Return failures of these paths."""
    return tuple(ImageFailure(path, FailureReason.DAMAGED, "It broke.") for path in paths.split())


def make_done(number: int, *, indexed: int = 2, failed: str = "", worker: str = "w1") -> ChunkDone:
    """Return what a worker made of a chunk."""
    failures = make_failures(failed)
    part = f"parts/{number}" if indexed else None
    return ChunkDone(number, part, indexed, failures, worker, "host", seconds=0.5)


class JobStoreContract:
    """Subclass it and give the fixtures ``job_store``, ``database`` and ``index_ids``.

    ``job_store`` runs by the fixture ``clock`` with leases of 10 seconds; ``index_ids`` are two
    indexes that it knows.
    """

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def index_id(self, index_ids: tuple[int, int]) -> int:
        return index_ids[0]

    @pytest.fixture(autouse=True)
    def _keep(self, job_store: JobStore, database: Database) -> None:
        self._store = job_store
        self._database = database

    def lease(self, owner: str = "a") -> Lease:
        """Lease a job that must be there."""
        lease = self._store.lease_next(owner)
        assert lease is not None
        return lease

    def plan(self, lease: Lease, *chunks: str) -> None:
        """Plan a job of nothing but these chunks."""
        plan = make_plan(*chunks)
        total = sum(len(chunk.image_paths) for chunk in plan)
        self._store.save_plan(lease, plan, total_images=total, settled_images=0, failures=())

    def embed(self, lease: Lease, done: ChunkDone) -> None:
        """Checkpoint a chunk."""
        with self._database.transaction() as transaction:
            self._store.checkpoint_embedded(transaction, lease, done)

    def commit(self, job_id: str, *numbers: int) -> None:
        """Checkpoint a publication."""
        with self._database.transaction() as transaction:
            self._store.checkpoint_committed(transaction, job_id, numbers)

    def numbers(self, job_id: str, state: ChunkState) -> list[int]:
        """Return the numbers of the chunks in a state."""
        return [chunk.number for chunk in self._store.chunks(job_id, state)]

    def progress(self, job_id: str) -> tuple[int, int, int]:
        """Return total, processed and failed images."""
        job = self._store.get(job_id)
        return job.total_images, job.processed_images, job.failed_images

    # What a scan found, and what is answered about removals.

    def test_findings_are_kept_and_forgotten_with_the_plan(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        lease = self.lease()
        assert job_store.findings(job.job_id) is None
        job_store.record_findings(lease, ScanFindings(added=3, missing=1))
        job_store.record_findings(lease, ScanFindings(added=3, missing=1, removed=1))
        assert job_store.findings(job.job_id) == ScanFindings(added=3, missing=1, removed=1)
        job_store.submit(make_new_job(index_id))  # It came again, so it runs once more.
        job_store.finish(lease, JobStatus.COMPLETED, None)
        assert job_store.findings(job.job_id) is None
        with pytest.raises(LeaseLost):
            job_store.record_findings(lease, ScanFindings())

    @pytest.mark.parametrize(("is_allowed", "allowed"), [(True, 7), (False, 0)])
    def test_a_job_that_asks_goes_on_with_the_answer(
        self, job_store: JobStore, index_id: int, is_allowed: bool, allowed: int
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        lease = self.lease()
        with pytest.raises(Conflict):
            job_store.answer_removals(job.job_id, is_allowed=is_allowed)
        job_store.record_findings(lease, ScanFindings(missing=9, removals_asked=7))
        job_store.finish(lease, JobStatus.PAUSED, "Seven are gone.")
        assert job_store.lease_next("b") is None
        answered = job_store.answer_removals(job.job_id, is_allowed=is_allowed)
        assert (answered.status, answered.error) == (JobStatus.QUEUED, None)
        found = job_store.findings(job.job_id)
        assert found == ScanFindings(missing=9, removals_allowed=allowed)
        with pytest.raises(Conflict):
            job_store.answer_removals(job.job_id, is_allowed=is_allowed)
        assert self.lease("b").job.job_id == job.job_id
        with pytest.raises(NotFound):
            job_store.answer_removals("idx_20000101_000000_0000", is_allowed=is_allowed)

    def test_removals_are_added_to_a_plan_and_count_as_no_images(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/a /b")
        job_store.add_removals(lease, [PlannedChunk(ChunkAction.REMOVE, ("/x", "/y"))])
        assert self.numbers(job.job_id, ChunkState.PLANNED) == [0]
        (removal,) = job_store.chunks(job.job_id, ChunkState.EMBEDDED)
        assert (removal.number, removal.image_paths) == (1, ("/x", "/y"))
        self.commit(job.job_id, 1)
        assert self.progress(job.job_id) == (2, 0, 0)

    def test_a_plan_is_extended_by_chunks_whose_images_count(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/a /b")
        job_store.extend_plan(lease, [PlannedChunk(ChunkAction.EMBED, ("/x",))])
        assert self.numbers(job.job_id, ChunkState.PLANNED) == [0, 1]
        assert self.progress(job.job_id) == (3, 0, 0)
        self.embed(lease, make_done(1, indexed=1))
        assert self.progress(job.job_id) == (3, 1, 0)
        job_store.requeue(lease, error=None, delay_seconds=0, count_attempt=False)
        with pytest.raises(LeaseLost):
            job_store.extend_plan(lease, [PlannedChunk(ChunkAction.EMBED, ("/y",))])

    def test_what_a_change_of_model_has_embedded_is_not_left_over_for_the_flow(
        self, job_store: JobStore, index_id: int
    ) -> None:
        change = replace(make_new_job(index_id, "change"), kind=JobKind.CHANGE_MODEL)
        job = job_store.submit(change)
        lease = self.lease()
        self.plan(lease, "/a")
        self.embed(lease, make_done(0, indexed=1))
        assert job_store.embedded_job_ids(index_id) == []
        assert job_store.embedded_job_ids(index_id, Lane.UPKEEP) == [job.job_id]

    def test_failures_of_some_reasons_are_planned_again_a_few_times(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/a /b")
        for number in (0, 1):
            self.embed(lease, make_done(number, indexed=1, failed="/a"))
            planned = job_store.retry_failures(lease, [FailureReason.DAMAGED], below_attempts=3)
            assert planned == 1
            assert job_store.retry_failures(lease, [FailureReason.EMPTY], below_attempts=3) == 0
        self.embed(lease, make_done(2, indexed=0, failed="/a"))
        assert job_store.retry_failures(lease, [FailureReason.DAMAGED], below_attempts=3) == 0
        assert self.progress(job.job_id) == (2, 2, 1)

    # Submission.

    def test_a_submitted_job_waits(self, job_store: JobStore, index_id: int) -> None:
        job = job_store.submit(
            NewJob(index_id, JobKind.INCREMENTAL, {"paths": ["/ä"]}, Priority.HIGH, "k", 3)
        )
        assert job == job_store.get(job.job_id)
        assert job.status is JobStatus.QUEUED
        assert (job.kind, job.priority) == (JobKind.INCREMENTAL, Priority.HIGH)
        assert dict(job.request) == {"paths": ["/ä"]}
        assert job.created_at == datetime(2025, 11, 14, 12, 34, 56, tzinfo=UTC)
        assert job.job_id.startswith("idx_20251114_123456_")
        assert (job.started_at, job.finished_at, job.error) == (None, None, None)
        assert not job.is_planned
        assert self.progress(job.job_id) == (3, 0, 0)

    def test_the_same_request_returns_the_active_job(
        self, job_store: JobStore, index_ids: tuple[int, int]
    ) -> None:
        job = job_store.submit(make_new_job(index_ids[0]))
        assert job_store.submit(make_new_job(index_ids[0])) == job
        lease = self.lease()
        assert job_store.submit(make_new_job(index_ids[0])).job_id == job.job_id
        assert job_store.submit(make_new_job(index_ids[0], "other")).job_id != job.job_id
        assert job_store.submit(make_new_job(index_ids[1])).job_id != job.job_id
        job_store.finish(lease, JobStatus.FAILED, "The model is gone.")
        assert job_store.submit(make_new_job(index_ids[0])).job_id != job.job_id

    def test_a_request_that_comes_again_while_its_job_runs_is_not_missed(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_id = self.finish_with_failures(index_id, again=True).job_id
        queued = job_store.get(job_id)
        assert (queued.status, queued.finished_at) == (JobStatus.QUEUED, None)
        assert not queued.is_planned
        assert self.progress(job_id) == (0, 0, 0)
        assert job_store.failures(job_id, limit=9, cursor=None).total == 0
        assert all(self.numbers(job_id, state) == [] for state in ChunkState)
        # At once, under the same id, and with numbers that no published segment names.
        lease = self.lease()
        assert (lease.job.job_id, lease.job.is_planned) == (job_id, False)
        self.plan(lease, "/1 /2")
        assert self.numbers(job_id, ChunkState.PLANNED) == [2]
        self.embed(lease, make_done(2))
        self.commit(job_id, 2)
        ended = job_store.finish(lease, JobStatus.COMPLETED, None)
        assert (ended.status, self.progress(job_id)) == (JobStatus.COMPLETED, (2, 2, 0))

    def test_a_job_that_is_to_run_again_waits_as_long_as_a_new_one(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id, "low", priority=Priority.LOW))
        lease = self.lease()
        job_store.submit(make_new_job(index_id, "low", priority=Priority.LOW))
        clock.advance(1200)
        normal = job_store.submit(make_new_job(index_id, "normal"))
        assert job_store.finish(lease, JobStatus.COMPLETED, None).status is JobStatus.QUEUED
        assert self.lease().job.job_id == normal.job_id

    def test_listeners_hear_of_a_job_that_is_to_run_again(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        job_store.submit(make_new_job(index_id))
        statuses: list[JobStatus] = []
        job_store.subscribe(lambda: statuses.append(job_store.get(lease.job.job_id).status))
        job_store.finish(lease, JobStatus.COMPLETED, None)
        assert statuses == [JobStatus.QUEUED]

    def test_a_request_that_comes_again_before_its_job_runs_makes_it_run_once(
        self, job_store: JobStore, index_id: int
    ) -> None:
        for _ in range(2):
            job_store.submit(make_new_job(index_id))
        ended = job_store.finish(self.lease(), JobStatus.COMPLETED, None)
        assert ended.status is JobStatus.COMPLETED

    def test_a_request_that_comes_again_while_its_planned_job_waits_is_not_missed(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1")
        job_store.requeue(lease, error=None, delay_seconds=0, count_attempt=False)
        assert job_store.submit(make_new_job(index_id)).job_id == job.job_id
        again = job_store.finish(self.lease(), JobStatus.COMPLETED, None)
        assert (again.status, again.is_planned) == (JobStatus.QUEUED, False)

    def test_a_request_that_came_again_is_not_missed_when_the_owner_dies(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id))
        self.plan(self.lease("a"), "/1")
        job_store.submit(make_new_job(index_id))
        clock.advance(10)
        again = job_store.finish(self.lease("b"), JobStatus.COMPLETED, None)
        assert again.status is JobStatus.QUEUED

    def test_a_job_that_is_not_to_run_again_runs_once(
        self, job_store: JobStore, index_id: int
    ) -> None:
        new = replace(make_new_job(index_id), runs_again=False)
        job = job_store.submit(new)
        lease = self.lease()
        assert job_store.submit(new).job_id == job.job_id
        ended = job_store.finish(lease, JobStatus.COMPLETED, None)
        assert ended.status is JobStatus.COMPLETED

    def test_a_repeated_idempotency_key_does_not_run_a_job_again(
        self, job_store: JobStore, index_id: int
    ) -> None:
        key = IdempotencyKey("client", "key", "hash")
        job = job_store.submit(make_new_job(index_id), key)
        lease = self.lease()
        assert job_store.submit(make_new_job(index_id), key).job_id == job.job_id
        ended = job_store.finish(lease, JobStatus.COMPLETED, None)
        assert ended.status is JobStatus.COMPLETED

    @pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED])
    def test_a_job_that_failed_or_was_cancelled_forgets_that_its_request_came_again(
        self, job_store: JobStore, index_id: int, status: JobStatus
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        lease = self.lease()
        job_store.submit(make_new_job(index_id))
        assert job_store.finish(lease, status, None).status is status
        job_store.retry(job.job_id)
        ended = job_store.finish(self.lease(), JobStatus.COMPLETED, None)
        assert ended.status is JobStatus.COMPLETED

    def test_a_job_that_is_to_run_again_is_cancelled_when_somebody_asked_for_it(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        lease = self.lease()
        job_store.submit(make_new_job(index_id))
        job_store.request_cancel(job.job_id)
        ended = job_store.finish(lease, JobStatus.COMPLETED, None)
        assert ended.status is JobStatus.CANCELLED

    def test_an_idempotency_key_returns_its_job_even_when_it_has_ended(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        key = IdempotencyKey("client", "key", "hash")
        job = job_store.submit(make_new_job(index_id), key)
        job_store.request_cancel(job.job_id)
        clock.advance(23 * 3600)
        assert job_store.submit(make_new_job(index_id), key).job_id == job.job_id
        stranger = IdempotencyKey("stranger", "key", "other hash")
        assert job_store.submit(make_new_job(index_id), stranger).job_id != job.job_id

    def test_an_idempotency_key_is_forgotten_after_a_day(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        key = IdempotencyKey("client", "key", "hash")
        job = job_store.submit(make_new_job(index_id), key)
        job_store.request_cancel(job.job_id)
        clock.advance(24 * 3600)
        again = IdempotencyKey("client", "key", "another hash")
        assert job_store.submit(make_new_job(index_id), again).job_id != job.job_id

    def test_an_idempotency_key_with_another_request_is_refused(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id), IdempotencyKey("client", "key", "hash"))
        with pytest.raises(InvalidRequest, match="key"):
            job_store.submit(
                make_new_job(index_id, "other"), IdempotencyKey("client", "key", "another")
            )
        assert job_store.list_jobs(status=None, limit=10, cursor=None).total == 1

    def test_an_idempotency_key_holds_the_active_job_of_the_same_request(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        key = IdempotencyKey("client", "key", "hash")
        assert job_store.submit(make_new_job(index_id), key).job_id == job.job_id
        job_store.request_cancel(job.job_id)
        assert job_store.submit(make_new_job(index_id), key).job_id == job.job_id

    def test_ids_of_one_second_are_drawn_until_they_differ(
        self, job_store: JobStore, index_id: int
    ) -> None:
        # 400 of 65,536 ids meet each other with a probability of 0.7.
        jobs = {job_store.submit(make_new_job(index_id, str(n))).job_id for n in range(400)}
        assert len(jobs) == 400

    def test_a_job_for_an_index_that_is_not_known_is_refused(self, job_store: JobStore) -> None:
        with pytest.raises(NotFound, match="999"):
            job_store.submit(make_new_job(999))

    def test_listeners_hear_of_new_work_only(self, job_store: JobStore, index_id: int) -> None:
        calls: list[int] = []
        unsubscribe = job_store.subscribe(
            lambda: calls.append(job_store.list_jobs(status=None, limit=1, cursor=None).total)
        )
        job = job_store.submit(make_new_job(index_id))
        job_store.submit(make_new_job(index_id))
        assert calls == [1]
        job_store.request_cancel(job.job_id)
        job_store.retry(job.job_id)
        assert calls == [1, 1]
        unsubscribe()
        job_store.submit(make_new_job(index_id, "other"))
        assert calls == [1, 1]

    # Lists.

    def test_jobs_are_listed_newest_first_in_stable_pages(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        made = []
        for number in range(5):
            made.append(job_store.submit(make_new_job(index_id, str(number))).job_id)
            clock.advance(0.001)
        first = job_store.list_jobs(status=None, limit=2, cursor=None)
        job_store.submit(make_new_job(index_id, "later"))
        second = job_store.list_jobs(status=None, limit=2, cursor=first.next_cursor)
        third = job_store.list_jobs(status=None, limit=2, cursor=second.next_cursor)
        listed = [job.job_id for page in (first, second, third) for job in page.items]
        assert listed == made[::-1]
        assert (first.total, third.total, third.next_cursor) == (5, 6, None)

    def test_jobs_of_one_moment_are_all_listed(self, job_store: JobStore, index_id: int) -> None:
        made = {job_store.submit(make_new_job(index_id, str(n))).job_id for n in range(7)}
        listed: list[str] = []
        cursor = None
        while True:
            page = job_store.list_jobs(status=None, limit=3, cursor=cursor)
            listed += [job.job_id for job in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert len(listed) == 7
        assert set(listed) == made

    def test_a_list_of_one_status_has_its_own_total(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        job_store.submit(make_new_job(index_id, "other"))
        job_store.request_cancel(job.job_id)
        page = job_store.list_jobs(status=JobStatus.CANCELLED, limit=10, cursor=None)
        assert [job.job_id for job in page.items] == [job.job_id]
        assert page.total == 1

    @pytest.mark.parametrize("cursor", ["", "x", "é", "WzFd", "W10", "bnVsbA", "W251bGwsIngiXQ"])
    def test_a_cursor_that_is_none_is_refused(self, job_store: JobStore, cursor: str) -> None:
        with pytest.raises(InvalidRequest, match="cursor"):
            job_store.list_jobs(status=None, limit=10, cursor=cursor)

    def test_a_limit_below_one_is_refused(self, job_store: JobStore) -> None:
        with pytest.raises(InvalidRequest, match="limit 0"):
            job_store.list_jobs(status=None, limit=0, cursor=None)

    def test_a_job_that_is_not_known_is_not_found(self, job_store: JobStore) -> None:
        calls: list[Callable[[str], Any]] = [
            job_store.get,
            job_store.retry,
            job_store.request_cancel,
            job_store.attempts_without_progress,
            lambda job_id: job_store.failures(job_id, limit=1, cursor=None),
        ]
        for call in calls:
            with pytest.raises(NotFound, match="idx_none"):
                call("idx_none")

    # Leases.

    def test_a_leased_job_runs(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        clock.advance(5)
        lease = self.lease("me")
        assert (lease.job.job_id, lease.owner) == (job.job_id, "me")
        assert lease.job.status is JobStatus.RUNNING
        assert lease.job.started_at is not None
        assert (lease.job.started_at - job.created_at).total_seconds() == 5
        assert job_store.lease_next("other") is None

    def test_one_job_runs_per_index(self, job_store: JobStore, index_ids: tuple[int, int]) -> None:
        for index_id in index_ids:
            for key in "xy":
                job_store.submit(make_new_job(index_id, key))
        leases = [self.lease("a"), self.lease("b")]
        assert sorted(lease.job.index_id for lease in leases) == sorted(index_ids)
        assert job_store.lease_next("c") is None
        job_store.finish(leases[0], JobStatus.COMPLETED, None)
        assert self.lease("c").job.index_id == leases[0].job.index_id

    def test_fences_of_an_index_rise(self, job_store: JobStore, index_id: int) -> None:
        job_store.submit(make_new_job(index_id))
        fences = []
        for _ in range(3):
            lease = self.lease()
            fences.append(lease.fence)
            job_store.requeue(lease, error=None, delay_seconds=0, count_attempt=False)
        assert fences == sorted(set(fences))
        job_store.raise_fence(index_id, 50)
        job_store.raise_fence(index_id, 7)
        assert self.lease().fence == 51

    def test_higher_priority_goes_first_and_then_age(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        submitted = {}
        for name in ("low", "normal", "high", "high later"):
            priority = Priority[name.split()[0].upper()]
            submitted[name] = job_store.submit(make_new_job(index_id, name, priority=priority))
            clock.advance(1)
        order = []
        for _ in submitted:
            lease = self.lease()
            order.append(lease.job.job_id)
            job_store.finish(lease, JobStatus.COMPLETED, None)
        names = ("high", "high later", "normal", "low")
        assert order == [submitted[name].job_id for name in names]

    def test_a_job_that_waits_rises(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        low = job_store.submit(make_new_job(index_id, "low", priority=Priority.LOW))
        clock.advance(599)
        normal = job_store.submit(make_new_job(index_id, "normal"))
        lease = self.lease()
        assert lease.job.job_id == normal.job_id
        job_store.requeue(lease, error=None, delay_seconds=0, count_attempt=False)
        clock.advance(2)
        assert self.lease().job.job_id == low.job_id

    def test_a_running_job_yields_to_a_higher_priority_only(
        self, job_store: JobStore, index_ids: tuple[int, int]
    ) -> None:
        job_store.submit(make_new_job(index_ids[0]))
        lease = self.lease()
        job_store.submit(make_new_job(index_ids[0], "same"))
        job_store.submit(make_new_job(index_ids[1], "elsewhere", priority=Priority.HIGH))
        assert not job_store.should_yield(lease)
        high = job_store.submit(make_new_job(index_ids[0], "high", priority=Priority.HIGH))
        assert job_store.should_yield(lease)
        job_store.request_cancel(high.job_id)
        assert not job_store.should_yield(lease)

    def test_a_rebuild_runs_beside_one_other_job_of_its_index(
        self, job_store: JobStore, index_ids: tuple[int, int]
    ) -> None:
        index_id = index_ids[0]
        for key in ("one", "two"):
            job_store.submit(make_new_job(index_id, key))
            job_store.submit(replace(make_new_job(index_id, f"re{key}"), kind=JobKind.REBUILD))
        leases = [self.lease(), self.lease()]
        assert {lease.job.kind for lease in leases} == {JobKind.FULL, JobKind.REBUILD}
        assert leases[0].fence < leases[1].fence
        assert job_store.lease_next("b") is None
        for lane in Lane:
            assert job_store.is_running(index_id, lane)
            assert not job_store.is_running(index_ids[1], lane)
        rebuild = next(lease for lease in leases if lease.job.kind is JobKind.REBUILD)
        job_store.finish(rebuild, JobStatus.COMPLETED, None)
        assert not job_store.is_running(index_id, Lane.UPKEEP)
        assert self.lease().job.kind is JobKind.REBUILD
        assert job_store.lease_next("b") is None

    def test_a_job_yields_only_to_those_of_its_lane(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        job_store.submit(replace(make_new_job(index_id, "rebuild"), kind=JobKind.REBUILD))
        leases = {lease.job.kind: lease for lease in (self.lease(), self.lease())}
        job_store.submit(make_new_job(index_id, "high", priority=Priority.HIGH))
        assert job_store.should_yield(leases[JobKind.FULL])
        assert not job_store.should_yield(leases[JobKind.REBUILD])

    def test_a_job_in_back_off_makes_nobody_yield(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id, "high", priority=Priority.HIGH))
        lease = self.lease()
        job_store.requeue(lease, error="It broke.", delay_seconds=5, count_attempt=True)
        job_store.submit(make_new_job(index_id, "low", priority=Priority.LOW))
        low = self.lease()
        assert low.job.priority is Priority.LOW
        assert not job_store.should_yield(low)
        clock.advance(5)
        assert job_store.should_yield(low)

    def test_a_job_that_rose_has_its_turn_before_it_yields(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id, "low", priority=Priority.LOW))
        clock.advance(1200)
        job_store.submit(make_new_job(index_id, "high", priority=Priority.HIGH))
        lease = self.lease()
        assert lease.job.priority is Priority.LOW
        assert not job_store.should_yield(lease)
        clock.advance(600)
        assert job_store.should_yield(lease)

    def test_a_renewed_lease_is_not_taken_over(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease("a")
        for _ in range(3):
            clock.advance(9)
            job_store.renew(lease)
            assert job_store.lease_next("b") is None

    def test_an_expired_lease_is_taken_over_at_once(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id))
        stale = self.lease("a")
        clock.advance(10)
        lease = self.lease("b")
        assert lease.job.job_id == stale.job.job_id
        assert lease.fence > stale.fence

    def test_an_expired_lease_that_nobody_took_is_still_held(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease("a")
        clock.advance(60)
        job_store.renew(lease)
        assert job_store.lease_next("b") is None

    def test_a_stale_owner_is_refused_everything(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id))
        stale = self.lease("a")
        self.plan(stale, "/1 /2", "/3")
        self.embed(stale, make_done(0))
        clock.advance(10)
        # The same name again, as after a restart: the fence alone tells them apart.
        self.lease("a")
        before = job_store.get(stale.job.job_id)

        def assert_held() -> None:
            with self._database.transaction() as transaction:
                job_store.assert_held(transaction, stale)

        calls: list[Callable[[], Any]] = [
            assert_held,
            lambda: job_store.renew(stale),
            lambda: job_store.is_cancel_requested(stale),
            lambda: job_store.should_yield(stale),
            lambda: job_store.requeue(stale, error=None, delay_seconds=0, count_attempt=True),
            lambda: job_store.finish(stale, JobStatus.COMPLETED, None),
            lambda: self.plan(stale, "/9"),
            lambda: self.embed(stale, make_done(1, indexed=1)),
            lambda: job_store.replan_chunks(stale, [0]),
        ]
        for call in calls:
            with pytest.raises(LeaseLost, match=stale.job.job_id):
                call()
        assert job_store.get(stale.job.job_id) == before
        assert self.numbers(stale.job.job_id, ChunkState.EMBEDDED) == [0]
        assert self.numbers(stale.job.job_id, ChunkState.PLANNED) == [1]

    def test_the_leases_of_a_former_life_expire_and_no_others(
        self, job_store: JobStore, index_ids: tuple[int, int]
    ) -> None:
        for index_id in index_ids:
            job_store.submit(make_new_job(index_id))
        mine, other = self.lease("home_1:x"), self.lease("homeX1:x")
        assert job_store.expire_own("home_1:") == 1
        taken = self.lease("home_1:y")
        assert taken.job.job_id == mine.job.job_id
        assert job_store.lease_next("home_1:y") is None
        job_store.renew(other)

    def test_a_poison_job_waits_longer_each_time_and_fails(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        self.lease()
        for delay_seconds in (0, 1, 2, 4, 8, 16, 32, 60, 60):
            clock.advance(10)
            if delay_seconds:
                assert job_store.lease_next("a") is None
                clock.advance(delay_seconds - 0.5)
                assert job_store.lease_next("a") is None
                clock.advance(0.5)
            self.lease()
        clock.advance(10)
        assert job_store.lease_next("a") is None
        failed = job_store.get(job.job_id)
        assert failed.status is JobStatus.FAILED
        assert failed.finished_at is not None
        assert failed.error is not None
        assert "10 times" in failed.error

    def test_a_checkpoint_forgives_crashes(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        self.plan(self.lease(), *(f"/{number}" for number in range(9)))
        for number in range(8):
            clock.advance(10)
            # At once, as after a first crash.
            self.embed(self.lease(), make_done(number, indexed=1))
        assert job_store.get(job.job_id).status is JobStatus.RUNNING

    def test_a_checkpoint_forgives_errors(self, job_store: JobStore, index_id: int) -> None:
        job = job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1", "/2")
        job_store.requeue(lease, error="It broke.", delay_seconds=0, count_attempt=True)
        assert job_store.attempts_without_progress(job.job_id) == 1
        lease = self.lease()
        assert job_store.attempts_without_progress(job.job_id) == 1
        self.embed(lease, make_done(0, indexed=1))
        assert job_store.attempts_without_progress(job.job_id) == 0

    def test_crashes_do_not_count_as_errors(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        self.lease()
        for _ in range(9):
            clock.advance(10)
            if job_store.lease_next("a") is None:  # Given up now; it waits for its back-off.
                clock.advance(60)
                self.lease()
        assert job_store.attempts_without_progress(job.job_id) == 0

    def test_errors_do_not_count_as_crashes(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        for _ in range(9):
            job_store.requeue(self.lease(), error="x", delay_seconds=0, count_attempt=True)
        self.lease()
        clock.advance(10)
        self.lease()  # At once, as after a first crash.
        assert job_store.attempts_without_progress(job.job_id) == 9

    def test_a_requeued_job_keeps_its_checkpoint_and_waits_its_delay(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2", "/3")
        self.embed(lease, make_done(0))
        job_store.requeue(lease, error="It broke.", delay_seconds=8, count_attempt=True)
        waiting = job_store.get(job.job_id)
        assert (waiting.status, waiting.error) == (JobStatus.QUEUED, "It broke.")
        assert job_store.attempts_without_progress(job.job_id) == 1
        assert job_store.lease_next("a") is None
        clock.advance(8)
        again = self.lease()
        assert (again.job.is_planned, again.job.error) == (True, None)
        assert self.numbers(job.job_id, ChunkState.PLANNED) == [1]
        assert self.progress(job.job_id) == (3, 2, 0)

    def test_a_finished_job_tells_how_it_ended(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        clock.advance(3)
        ended = job_store.finish(lease, JobStatus.FAILED, "The model is gone.")
        assert ended == job_store.get(lease.job.job_id)
        assert (ended.status, ended.error) == (JobStatus.FAILED, "The model is gone.")
        assert ended.finished_at is not None
        assert ended.finished_at.timestamp() == clock()
        with pytest.raises(LeaseLost):
            job_store.renew(lease)

    def test_a_paused_job_is_active_and_can_be_cancelled(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        paused = job_store.finish(self.lease(), JobStatus.PAUSED, "Confirm the removal.")
        assert (paused.status, paused.finished_at) == (JobStatus.PAUSED, None)
        assert job_store.lease_next("a") is None
        assert job_store.submit(make_new_job(index_id)).job_id == paused.job_id
        assert job_store.active_job_ids(index_id) == [paused.job_id]
        assert job_store.request_cancel(paused.job_id).status is JobStatus.CANCELLED

    def test_a_job_cannot_finish_as_running(self, job_store: JobStore, index_id: int) -> None:
        job_store.submit(make_new_job(index_id))
        with pytest.raises(ValueError, match="running"):
            job_store.finish(self.lease(), JobStatus.RUNNING, None)

    # Cancelling.

    def test_a_waiting_job_is_cancelled_at_once(self, job_store: JobStore, index_id: int) -> None:
        job = job_store.submit(make_new_job(index_id))
        cancelled = job_store.request_cancel(job.job_id)
        assert cancelled.status is JobStatus.CANCELLED
        assert cancelled.finished_at is not None
        assert job_store.request_cancel(job.job_id) == cancelled
        assert job_store.lease_next("a") is None
        assert job_store.active_job_ids(index_id) == []

    def test_a_running_job_is_told_to_stop(self, job_store: JobStore, index_id: int) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        assert not job_store.is_cancel_requested(lease)
        asked = job_store.request_cancel(lease.job.job_id)
        assert (asked.status, asked.cancel_requested) == (JobStatus.RUNNING, True)
        assert job_store.is_cancel_requested(lease)

    def test_a_job_that_is_given_back_after_its_cancellation_ends(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        job_store.request_cancel(lease.job.job_id)
        job_store.requeue(lease, error=None, delay_seconds=0, count_attempt=False)
        assert job_store.get(lease.job.job_id).status is JobStatus.CANCELLED

    def test_a_job_whose_owner_died_after_its_cancellation_ends(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        job_store.request_cancel(lease.job.job_id)
        clock.advance(10)
        assert job_store.lease_next("b") is None
        assert job_store.get(lease.job.job_id).status is JobStatus.CANCELLED

    def test_a_job_that_completed_or_failed_cannot_be_cancelled(
        self, job_store: JobStore, index_id: int
    ) -> None:
        for status in (JobStatus.COMPLETED, JobStatus.FAILED):
            job = job_store.submit(make_new_job(index_id))
            job_store.finish(self.lease(), status, None)
            with pytest.raises(Conflict, match=status):
                job_store.request_cancel(job.job_id)

    # Plans and checkpoints.

    def test_a_plan_is_stored_with_what_needs_no_worker(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        plan = [*make_plan("/1 /2", "/3"), PlannedChunk(ChunkAction.REMOVE, ("/4", "/5"))]
        job_store.save_plan(
            lease, plan, total_images=9, settled_images=6, failures=make_failures("/6")
        )
        job = job_store.get(lease.job.job_id)
        assert job.is_planned
        assert self.progress(job.job_id) == (9, 6, 1)
        planned = job_store.chunks(job.job_id, ChunkState.PLANNED)
        assert [chunk.image_paths for chunk in planned] == [("/1", "/2"), ("/3",)]
        (removal,) = job_store.chunks(job.job_id, ChunkState.EMBEDDED)
        assert (removal.action, removal.image_paths) == (ChunkAction.REMOVE, ("/4", "/5"))
        assert removal.part is None
        (failure,) = job_store.failures(job.job_id, limit=5, cursor=None).items
        assert (failure.image_path, failure.reason) == ("/6", FailureReason.DAMAGED)
        assert failure.attempts == 1

    def test_a_new_plan_replaces_the_old_one_under_new_numbers(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1", "/2")
        self.embed(lease, make_done(0, indexed=0, failed="/1"))
        job_store.save_plan(
            lease,
            make_plan("/3"),
            total_images=2,
            settled_images=1,
            failures=make_failures("/4"),
        )
        assert self.numbers(lease.job.job_id, ChunkState.PLANNED) == [2]
        assert self.numbers(lease.job.job_id, ChunkState.EMBEDDED) == []
        assert self.progress(lease.job.job_id) == (2, 1, 1)
        page = job_store.failures(lease.job.job_id, limit=5, cursor=None)
        assert [failure.image_path for failure in page.items] == ["/4"]

    def test_an_embedded_chunk_counts_once(self, job_store: JobStore, index_id: int) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2 /3", "/4")
        for _ in range(2):
            self.embed(lease, make_done(0, indexed=2, failed="/2"))
            assert self.progress(lease.job.job_id) == (4, 3, 1)
        (chunk,) = job_store.chunks(lease.job.job_id, ChunkState.EMBEDDED)
        assert (chunk.number, chunk.part) == (0, "parts/0")
        assert chunk.image_paths == ("/1", "/2", "/3")
        _, (share,) = job_store.get_with_shares(lease.job.job_id)
        assert (share.worker_id, share.images_processed, share.seconds) == ("w1", 3, 0.5)

    def test_a_chunk_that_was_never_planned_is_not_found(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1")
        with pytest.raises(NotFound, match="chunk 7"):
            self.embed(lease, make_done(7))

    def test_a_checkpoint_is_rolled_back_with_its_transaction(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2")
        with suppress(ZeroDivisionError), self._database.transaction() as transaction:
            job_store.checkpoint_embedded(transaction, lease, make_done(0, failed="/1"))
            raise ZeroDivisionError
        assert self.progress(lease.job.job_id) == (2, 0, 0)
        assert self.numbers(lease.job.job_id, ChunkState.PLANNED) == [0]

    def test_a_committed_chunk_forgets_its_paths(self, job_store: JobStore, index_id: int) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2", "/3")
        self.embed(lease, make_done(0))
        for _ in range(2):
            self.commit(lease.job.job_id, 0)
            assert self.progress(lease.job.job_id) == (3, 2, 0)
        (chunk,) = job_store.chunks(lease.job.job_id, ChunkState.COMMITTED)
        assert (chunk.number, chunk.image_paths) == (0, ())

    def test_a_chunk_that_is_found_published_counts_although_it_was_never_recorded(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2", "/3")
        self.commit(lease.job.job_id, 0, 99)
        self.commit("idx_of_a_lost_database", 0)
        self.embed(lease, make_done(0))
        assert self.progress(lease.job.job_id) == (3, 2, 0)
        assert self.numbers(lease.job.job_id, ChunkState.COMMITTED) == [0]

    def test_chunks_whose_parts_are_gone_are_embedded_again(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2", "/3 /4", "/5 /6")
        for number in range(3):
            self.embed(lease, make_done(number, indexed=1, failed=f"/{number * 2 + 1}"))
        self.commit(lease.job.job_id, 0)
        assert self.progress(lease.job.job_id) == (6, 6, 3)
        job_store.replan_chunks(lease, [0, 1])
        assert self.progress(lease.job.job_id) == (6, 4, 2)
        (chunk,) = job_store.chunks(lease.job.job_id, ChunkState.PLANNED)
        assert (chunk.number, chunk.image_paths, chunk.part) == (1, ("/3", "/4"), None)
        self.embed(lease, make_done(1, failed=""))
        assert self.progress(lease.job.job_id) == (6, 6, 2)
        page = job_store.failures(lease.job.job_id, limit=9, cursor=None)
        assert [failure.image_path for failure in page.items] == ["/1", "/5"]

    def test_jobs_with_embedded_chunks_are_named_whatever_their_status(
        self, job_store: JobStore, index_ids: tuple[int, int], clock: ManualClock
    ) -> None:
        index_id, other = index_ids
        jobs = []
        for key in ("failed", "cancelled", "committed", "planned", "running"):
            jobs.append(job_store.submit(make_new_job(index_id, key)).job_id)
            clock.advance(1)
        job_store.submit(make_new_job(other))
        assert job_store.embedded_job_ids(index_id) == []
        for _ in range(6):
            lease = self.lease()
            self.plan(lease, "/1", "/2")
            if lease.job.job_id != jobs[3]:
                self.embed(lease, make_done(0, indexed=1))
            if lease.job.job_id in jobs[:4]:
                status = JobStatus.CANCELLED if lease.job.job_id == jobs[1] else JobStatus.FAILED
                job_store.finish(lease, status, None)
        self.commit(jobs[2], 0)
        assert job_store.embedded_job_ids(index_id) == [jobs[0], jobs[1], jobs[4]]
        self.commit(jobs[0], 0)
        assert job_store.embedded_job_ids(index_id) == [jobs[1], jobs[4]]

    def test_a_job_whose_only_embedded_chunk_is_a_removal_is_named(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        removal = PlannedChunk(ChunkAction.REMOVE, ("/1",))
        job_store.save_plan(self.lease(), [removal], total_images=1, settled_images=1, failures=())
        assert job_store.embedded_job_ids(index_id) == [job.job_id]

    def test_failures_come_in_pages_by_path(self, job_store: JobStore, index_id: int) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/e /a /d", "/c /b")
        self.embed(lease, make_done(0, indexed=0, failed="/e /a /d"))
        self.embed(lease, make_done(1, indexed=0, failed="/c /b"))
        paths: list[str] = []
        cursor = None
        for expected in (2, 2, 1):
            page = job_store.failures(lease.job.job_id, limit=2, cursor=cursor)
            assert (len(page.items), page.total) == (expected, 5)
            paths += [failure.image_path for failure in page.items]
            cursor = page.next_cursor
        assert cursor is None
        assert paths == ["/a", "/b", "/c", "/d", "/e"]
        jobs_cursor = "WzEuMCwieCJd"
        with pytest.raises(InvalidRequest):
            job_store.failures(lease.job.job_id, limit=2, cursor=jobs_cursor)

    def test_the_rate_is_that_of_the_chunks_done_last(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        assert job_store.recent_images_per_second(index_id) is None
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, *(f"/{number} /{number}b" for number in range(42)))
        assert job_store.recent_images_per_second(index_id) is None
        for number in range(42):
            clock.advance(1)
            slow = ChunkDone(number, "p", 2, (), "w1", "host", seconds=100.0)
            fast = make_done(number, worker=f"w{number % 2}")
            self.embed(lease, slow if number < 20 else fast)
        # Two workers, each with 2 images in half a second.
        assert job_store.recent_images_per_second(index_id) == pytest.approx(8.0)

    # Retrying.

    def finish_with_failures(self, index_id: int, *, again: bool = False) -> Job:
        """Run a job to its end in which two of five images fail; submit it ``again`` meanwhile."""
        self._store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2 /3", "/4 /5")
        self.embed(lease, make_done(0, indexed=2, failed="/2"))
        self.embed(lease, make_done(1, indexed=1, failed="/5"))
        self.commit(lease.job.job_id, 0, 1)
        if again:
            self._store.submit(make_new_job(index_id))
        return self._store.finish(lease, JobStatus.COMPLETED, None)

    def test_a_retried_job_runs_what_failed(self, job_store: JobStore, index_id: int) -> None:
        job_id = self.finish_with_failures(index_id).job_id
        assert self.progress(job_id) == (5, 5, 2)
        queued = job_store.retry(job_id)
        assert (queued.status, queued.finished_at) == (JobStatus.QUEUED, None)
        assert self.progress(job_id) == (5, 3, 0)
        assert job_store.failures(job_id, limit=9, cursor=None).total == 2
        lease = self.lease()
        assert lease.job.job_id == job_id
        (chunk,) = job_store.chunks(job_id, ChunkState.PLANNED)
        assert (chunk.number, chunk.image_paths) == (2, ("/2", "/5"))
        self.embed(lease, make_done(2, indexed=1, failed="/5"))
        assert self.progress(job_id) == (5, 5, 1)
        (failure,) = job_store.failures(job_id, limit=9, cursor=None).items
        assert (failure.image_path, failure.attempts) == ("/5", 2)

    def test_failed_images_are_put_into_chunks_as_large_as_the_plan_had(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2", "/3 /4", "/5")
        for number, failed in enumerate(("/1 /2", "/3 /4", "/5")):
            self.embed(lease, make_done(number, indexed=0, failed=failed))
        job_store.finish(lease, JobStatus.COMPLETED, None)
        job_store.retry(lease.job.job_id)
        planned = job_store.chunks(lease.job.job_id, ChunkState.PLANNED)
        assert [chunk.image_paths for chunk in planned] == [("/1", "/2"), ("/3", "/4"), ("/5",)]

    def test_a_retry_that_is_cancelled_and_retried_doubles_nothing(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_id = self.finish_with_failures(index_id).job_id
        job_store.retry(job_id)
        job_store.request_cancel(job_id)
        again = job_store.retry(job_id)
        assert not again.cancel_requested
        assert self.progress(job_id) == (5, 3, 0)
        assert self.numbers(job_id, ChunkState.PLANNED) == [2]

    def test_a_cancelled_job_resumes_what_was_not_done(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2", "/3")
        self.embed(lease, make_done(0))
        job_store.request_cancel(lease.job.job_id)
        job_store.finish(lease, JobStatus.CANCELLED, None)
        job_store.retry(lease.job.job_id)
        again = self.lease()
        assert again.job.is_planned
        assert not again.job.cancel_requested
        assert self.numbers(lease.job.job_id, ChunkState.PLANNED) == [1]
        assert self.numbers(lease.job.job_id, ChunkState.EMBEDDED) == [0]

    def test_a_failed_job_that_was_never_planned_runs_again(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        job_store.finish(lease, JobStatus.FAILED, "The model is gone.")
        queued = job_store.retry(lease.job.job_id)
        assert (queued.status, queued.error, queued.is_planned) == (JobStatus.QUEUED, None, False)
        assert self.lease().job.job_id == lease.job.job_id

    def test_only_what_has_ended_with_something_left_to_do_is_retried(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        with pytest.raises(Conflict, match="queued"):
            job_store.retry(job.job_id)
        lease = self.lease()
        with pytest.raises(Conflict, match="running"):
            job_store.retry(job.job_id)
        job_store.finish(lease, JobStatus.COMPLETED, None)
        with pytest.raises(Conflict, match="without failures"):
            job_store.retry(job.job_id)

    def test_a_job_is_not_retried_beside_an_active_one_of_the_same_request(
        self, job_store: JobStore, index_id: int
    ) -> None:
        first = job_store.submit(make_new_job(index_id))
        job_store.request_cancel(first.job_id)
        second = job_store.submit(make_new_job(index_id))
        with pytest.raises(Conflict, match=second.job_id):
            job_store.retry(first.job_id)
