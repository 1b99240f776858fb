"""Retrying."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imagedex.core.errors import Conflict
from imagedex.jobs import ChunkState, JobKind, JobStatus, JobStore
from imagedex.testing.job_store.making import make_done, make_new_job
from imagedex.testing.job_store.suite import JobStoreSuite


class JobRetries(JobStoreSuite):
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

    def test_a_completed_change_of_model_is_not_retried(
        self, job_store: JobStore, index_id: int
    ) -> None:
        change = replace(make_new_job(index_id), kind=JobKind.CHANGE_MODEL)
        job = job_store.submit(change)
        lease = self.lease()
        self.plan(lease, "/1 /2")
        self.embed(lease, make_done(0, indexed=1, failed="/2"))
        self.commit(job.job_id, 0)
        job_store.finish(lease, JobStatus.COMPLETED, None)
        with pytest.raises(Conflict, match="has changed the model"):
            job_store.retry(job.job_id)

    def test_a_job_is_not_retried_beside_an_active_one_of_the_same_request(
        self, job_store: JobStore, index_id: int
    ) -> None:
        first = job_store.submit(make_new_job(index_id))
        job_store.request_cancel(first.job_id)
        second = job_store.submit(make_new_job(index_id))
        with pytest.raises(Conflict, match=second.job_id):
            job_store.retry(first.job_id)
