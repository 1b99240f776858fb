"""What a scan found, and what is answered about removals."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imagedex.core.errors import Conflict, LeaseLost, NotFound
from imagedex.core.images import FailureReason
from imagedex.jobs import (
    ChunkAction,
    ChunkState,
    JobKind,
    JobStatus,
    JobStore,
    Lane,
    PlannedChunk,
    ScanFindings,
)
from imagedex.testing.job_store.making import make_done, make_new_job
from imagedex.testing.job_store.suite import JobStoreSuite


class JobFindings(JobStoreSuite):
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
