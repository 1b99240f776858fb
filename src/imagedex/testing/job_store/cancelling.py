"""Cancelling."""

from __future__ import annotations

import pytest

from imagedex.core.errors import Conflict
from imagedex.jobs import JobStatus, JobStore
from imagedex.testing.job_store.making import ManualClock, make_new_job
from imagedex.testing.job_store.suite import JobStoreSuite


class JobCancelling(JobStoreSuite):
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
