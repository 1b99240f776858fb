"""Plans and checkpoints."""

from __future__ import annotations

from contextlib import suppress

import pytest

from imagedex.core.errors import InvalidRequest, NotFound
from imagedex.core.images import FailureReason
from imagedex.jobs import ChunkAction, ChunkDone, ChunkState, JobStatus, JobStore, PlannedChunk
from imagedex.testing.job_store.making import (
    ManualClock,
    make_done,
    make_failures,
    make_new_job,
    make_plan,
)
from imagedex.testing.job_store.suite import JobStoreSuite


class JobPlans(JobStoreSuite):
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
            lease, make_plan("/3"), total_images=2, settled_images=1, failures=make_failures("/4")
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
