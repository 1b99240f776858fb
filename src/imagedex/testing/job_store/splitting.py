"""Cutting chunks, and the rates by which they are cut."""

from __future__ import annotations

import pytest

from imagedex.core.errors import Conflict, LeaseLost, NotFound
from imagedex.jobs import ChunkState, JobStatus, JobStore
from imagedex.testing.job_store.making import ManualClock, make_done, make_new_job
from imagedex.testing.job_store.suite import JobStoreSuite


class JobSplitting(JobStoreSuite):
    def test_a_chunk_is_cut_into_pieces_with_numbers_of_their_own(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2 /3 /4 /5", "/6")
        pieces = job_store.split_chunk(lease, 0, [2, 1, 2])
        assert [(piece.number, piece.image_paths) for piece in pieces] == [
            (2, ("/1", "/2")),
            (3, ("/3",)),
            (4, ("/4", "/5")),
        ]
        planned = job_store.chunks(lease.job.job_id, ChunkState.PLANNED)
        assert [chunk.number for chunk in planned] == [1, 2, 3, 4]
        assert planned[1:] == pieces
        assert self.progress(lease.job.job_id) == (6, 0, 0)
        for number in range(1, 5):
            self.embed(lease, make_done(number, indexed=1))
        assert self.progress(lease.job.job_id) == (6, 6, 0)
        again = job_store.submit(make_new_job(index_id, "another"))
        assert job_store.get(again.job_id).total_images == 0

    def test_a_number_that_was_split_is_never_used_again(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2 /3 /4")
        _, rest = job_store.split_chunk(lease, 0, [1, 3])
        (piece, _) = job_store.split_chunk(lease, rest.number, [1, 2])
        assert piece.number == 3
        job_store.save_plan(lease, (), total_images=0, settled_images=0, failures=())
        self.plan(lease, "/9")
        assert self.numbers(lease.job.job_id, ChunkState.PLANNED) == [5]
        with pytest.raises(NotFound, match="chunk 0"):
            job_store.split_chunk(lease, 0, [1, 3])

    def test_what_a_chunk_was_to_try_again_is_tried_by_its_pieces(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_id = self.finish_with_failures(index_id).job_id
        job_store.retry(job_id)
        lease = self.lease()
        (chunk,) = job_store.chunks(job_id, ChunkState.PLANNED)
        assert chunk.image_paths == ("/2", "/5")
        first, second = job_store.split_chunk(lease, chunk.number, [1, 1])
        self.embed(lease, make_done(first.number, indexed=1))
        assert self.progress(job_id) == (5, 4, 0)
        page = job_store.failures(job_id, limit=9, cursor=None)
        assert [failure.image_path for failure in page.items] == ["/5"]
        self.embed(lease, make_done(second.number, indexed=0, failed="/5"))
        assert self.progress(job_id) == (5, 5, 1)

    def test_only_what_is_planned_is_cut_and_into_all_its_images(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2 /3", "/4 /5")
        self.embed(lease, make_done(1))
        with pytest.raises(Conflict, match="embedded"):
            job_store.split_chunk(lease, 1, [1, 1])
        for sizes in ([1, 1], [3, 1], [3, 0], [4, -1], []):
            with pytest.raises(ValueError, match="3 images"):
                job_store.split_chunk(lease, 0, sizes)
        job_store.finish(lease, JobStatus.FAILED, None)
        with pytest.raises(LeaseLost):
            job_store.split_chunk(lease, 0, [1, 2])
        assert self.numbers(lease.job.job_id, ChunkState.PLANNED) == [0]

    def test_rates_are_kept_by_slot_and_model_and_the_newest_comes_last(
        self, job_store: JobStore, clock: ManualClock
    ) -> None:
        assert job_store.worker_rates() == {}
        job_store.record_worker_rates({("gpu/1", "clip"): 80.0, ("cpu/1", "clip"): 4.0})
        clock.advance(1)
        job_store.record_worker_rates({("gpu/1", "tiny"): 900.0})
        clock.advance(1)
        job_store.record_worker_rates({("gpu/1", "clip"): 90.0})
        assert list(job_store.worker_rates().items()) == [
            (("cpu/1", "clip"), 4.0),
            (("gpu/1", "tiny"), 900.0),
            (("gpu/1", "clip"), 90.0),
        ]

    def test_rates_of_what_is_long_gone_are_forgotten(
        self, job_store: JobStore, clock: ManualClock
    ) -> None:
        job_store.record_worker_rates({("old/1", "clip"): 1.0})
        clock.advance(100 * 24 * 3600)
        job_store.record_worker_rates({("new/1", "clip"): 2.0})
        assert job_store.worker_rates() == {("new/1", "clip"): 2.0}
