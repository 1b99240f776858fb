"""What the suites of the job store share."""

from __future__ import annotations

import pytest

from imagedex.database import Database
from imagedex.jobs import ChunkDone, ChunkState, Job, JobStatus, JobStore, Lease
from imagedex.testing.job_store.making import ManualClock, make_done, make_new_job, make_plan


class JobStoreSuite:
    """Fixtures and helpers; ``JobStoreContract`` says what a subclass has to give."""

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
