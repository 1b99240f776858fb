"""Submission, and requests that come again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from imagedex.core.errors import InvalidRequest, NotFound
from imagedex.jobs import ChunkState, IdempotencyKey, JobKind, JobStatus, JobStore, NewJob, Priority
from imagedex.testing.job_store.making import ManualClock, make_done, make_new_job
from imagedex.testing.job_store.suite import JobStoreSuite


class JobSubmission(JobStoreSuite):
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
