"""Snapshots of the indexes of a running server: requests, and the jobs that they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from imagedex.catalog import Catalog
from imagedex.core.errors import Conflict, CorruptIndex, LeaseLost, NotFound
from imagedex.core.times import at_most_every, utc_now
from imagedex.indexing import IndexLocations, IndexTurns
from imagedex.jobs import Job, JobKind, JobRun, JobStore, NewJob, Priority
from imagedex.segments import Snapshot
from imagedex.upkeep.snapshots import Snapshots

_LOOK_UP_SECONDS = 1.0  # Between looks at whether the job is to go on.
_SCHEDULED = "scheduled-"

_log = structlog.get_logger(__name__)


class SnapshotJobs:
    """The snapshots of all indexes of a home; see ``SnapshotRequests`` for what is requested."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        jobs: JobStore,
        locations: IndexLocations,
        turns: IndexTurns,
        snapshots_of: Callable[[Path], Snapshots],
        kept: int,
    ) -> None:
        """Take what there is; the last ``kept`` scheduled snapshots of each index stay."""
        self._catalog = catalog
        self._jobs = jobs
        self._locations = locations
        self._turns = turns
        self._snapshots_of = snapshots_of
        self._kept = kept

    def list(self, index_prefix: str | None = None) -> list[Snapshot | CorruptIndex]:
        """Return all snapshots of an index, oldest first, and why some cannot be read."""
        return self._snapshots_of(self._locations.resolve(index_prefix)).list()

    def create(
        self,
        name: str | None = None,
        *,
        index_prefix: str | None = None,
    ) -> tuple[Job, str]:
        """Request that the generation which is current then be kept; return the job and the name.

        The same name while its job is active is that job.
        """
        prefix = self._locations.resolve(index_prefix)
        chosen = self._snapshots_of(prefix).free_name(name)
        job = self._jobs.submit(self._new(JobKind.SNAPSHOT, prefix, chosen))
        return job, chosen

    def restore(
        self,
        name: str,
        *,
        index_prefix: str | None = None,
    ) -> Job:
        """Request that a snapshot become the current generation, before other jobs."""
        prefix = self._locations.resolve(index_prefix)
        self._snapshots_of(prefix).get(name)
        return self._jobs.submit(self._new(JobKind.RESTORE, prefix, name))

    def delete(self, name: str, *, index_prefix: str | None = None) -> None:
        """Delete a snapshot. Raises NotFound, InvalidRequest, StorageError."""
        self._snapshots_of(self._locations.resolve(index_prefix)).delete(name)

    def scheduled(self) -> Sequence[NewJob]:
        """Return the requests of snapshots of all indexes that hold something."""
        name = f"{_SCHEDULED}{utc_now():%Y%m%dT%H%M%SZ}"
        return [
            self._new(JobKind.SNAPSHOT, index.index_prefix, name)
            for index in self._catalog.list_indexes()
            if index.generation > 0
        ]

    def run_snapshot(self, run: JobRun) -> None:
        """Run a job that makes a snapshot; of scheduled ones, delete the oldest."""
        job = run.lease.job
        name = str(job.request["name"])
        snapshots = self._snapshots_of(Path(job.request["index_prefix"]))
        try:
            made = snapshots.create(
                name, checkpoint=at_most_every(_LOOK_UP_SECONDS, run.require_going_on)
            )
        except LeaseLost:
            raise  # It is a conflict, too, but of another kind.
        except Conflict:
            made = snapshots.get(name)
            begun = job.created_at.replace(microsecond=job.created_at.microsecond // 1000 * 1000)
            if made.created_at < begun:
                raise  # Otherwise an earlier run of the job has made it, and was ended then.
        self._count(run, made.manifest.images)
        if name.startswith(_SCHEDULED):
            names = [s.name for s in snapshots.list() if isinstance(s, Snapshot)]
            scheduled = [name for name in names if name.startswith(_SCHEDULED)]
            for old in scheduled[: -self._kept]:
                snapshots.delete(old)

    def run_restore(self, run: JobRun) -> None:
        """Run a job that brings a snapshot back. Run again, it does so again."""
        job = run.lease.job
        prefix = Path(job.request["index_prefix"])
        run.checkpoint()
        with self._turns.of(prefix).held():
            self._jobs.renew(run.lease)
            manifest = self._snapshots_of(prefix).restore(str(job.request["name"]))
        self._count(run, manifest.images)
        _log.info(
            "snapshot_restored",
            index_prefix=str(prefix),
            snapshot=job.request["name"],
            generation=manifest.generation,
            job_id=job.job_id,
        )

    def _count(self, run: JobRun, images: int) -> None:
        if not run.lease.job.is_planned:
            self._jobs.save_plan(
                run.lease, (), total_images=images, settled_images=images, failures=()
            )

    def _new(self, kind: JobKind, index_prefix: Path, name: str) -> NewJob:
        index = self._catalog.get_index(index_prefix)
        if index is None:
            raise NotFound(f"There is no index at {str(index_prefix)!r}; index a directory first.")
        return NewJob(
            index_id=index.index_id,
            kind=kind,
            request={"index_prefix": str(index_prefix), "name": name},
            # Whoever goes back does not want more to be done before.
            priority=Priority.HIGH if kind is JobKind.RESTORE else Priority.NORMAL,
            dedupe_key=f"{kind.value}-{name}",
            runs_again=False,
        )
