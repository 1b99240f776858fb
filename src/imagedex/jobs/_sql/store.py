"""The job store."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Text, func, literal_column, select, update

from imagedex.core.errors import Conflict
from imagedex.core.images import FailureReason, ImageFailure
from imagedex.database import Database, Snapshot, Transaction
from imagedex.database.tables import indexes, job_chunks, jobs
from imagedex.jobs._sql import findings, leasing, listing, plans, rates, scheduling, submission
from imagedex.jobs._sql.rows import ACTIVE, held_row, job_of, job_row
from imagedex.jobs.interfaces import IdempotencyKey, NewJob, Page
from imagedex.jobs.records import (
    Chunk,
    ChunkDone,
    ChunkState,
    Job,
    JobFailure,
    JobKind,
    JobStatus,
    Lane,
    Lease,
    PlannedChunk,
    ScanFindings,
    WorkerShare,
)

_RATED_CHUNKS = 20  # Enough to even out single images, few enough to follow a new model's pace.


class SqlJobStore:
    """Jobs in a :class:`Database`; see :class:`imagedex.jobs.JobStore`.

    A job's level is its priority, risen by one for each ten minutes of waiting. A job whose
    owner fell silent is taken over at once the first time, then after 1, 2, 4 and at most 60
    seconds, and fails when that happens ten times without a checkpoint between; errors, which
    the runner counts, count apart from it.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_seconds: float = 15.0,
        now: Callable[[], float] | None = None,
    ) -> None:
        """Take the database, whose clock counts unless ``now`` is another that all share."""
        self._database = database
        self._lease_seconds = lease_seconds
        self._clock = now
        self._listeners: list[Callable[[], None]] = []
        self._listening = threading.Lock()

    @property
    def lease_seconds(self) -> float:
        """After this silence of its owner a job may be taken over."""
        return self._lease_seconds

    def over(self, database: Database) -> SqlJobStore:
        """Return a store of the same jobs over another view of their database.

        Both announce work to whoever has subscribed to one of them.
        """
        other = copy.copy(self)
        other._database = database  # noqa: SLF001 - It is one of its own kind.
        return other

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` whenever this store has made work; see the contract."""
        with self._listening:
            self._listeners.append(listener)

        def unsubscribe() -> None:
            with self._listening:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return unsubscribe

    def submit(self, new: NewJob, idempotency: IdempotencyKey | None = None) -> Job:
        """Store a job, or return the one that this request has already made; see the contract."""
        with self._database.transaction() as transaction:
            row, is_new = submission.submit(
                transaction.connection, new, idempotency, self._now(transaction)
            )
            job = job_of(row)
        if is_new:
            self._announce()
        return job

    def due_at(self, schedule: str, times: str) -> float | None:
        """Return when a schedule of these times is due; None for one that is new or has changed."""
        with self._database.read() as snapshot:
            return scheduling.due_at(snapshot.connection, schedule, times)

    def submit_scheduled(
        self,
        schedule: str,
        times: str,
        next_after: Callable[[float], float],
        requests: Sequence[NewJob],
        *,
        now: float,
    ) -> tuple[list[Job], float]:
        """Submit the jobs of a schedule if it is due, and note when it is due next."""
        submitted = []
        with self._database.transaction() as transaction:
            connection = transaction.connection
            is_due, due_at = scheduling.advance(connection, schedule, times, next_after, now=now)
            if is_due:
                for new in requests:
                    row, _ = submission.submit(connection, new, None, self._now(transaction))
                    submitted.append(job_of(row))
        if submitted:
            self._announce()
        return submitted, due_at

    def get(self, job_id: str) -> Job:
        """Return a job. Raises NotFound."""
        with self._database.read() as snapshot:
            return job_of(job_row(snapshot.connection, job_id))

    def get_with_shares(self, job_id: str) -> tuple[Job, list[WorkerShare]]:
        """Return a job and what each worker did for it so far, as of one moment."""
        with self._database.read() as snapshot:
            job = job_of(job_row(snapshot.connection, job_id))
            return job, listing.worker_shares(snapshot.connection, job_id)

    def findings(self, job_id: str) -> ScanFindings | None:
        """Return what a job's scan found, if it has scanned."""
        with self._database.read() as snapshot:
            return findings.stored(snapshot.connection, job_id)

    def answer_removals(self, job_id: str, *, is_allowed: bool) -> Job:
        """Let a paused job go on, with or without the removals that it asked about."""
        with self._database.transaction() as transaction:
            connection = transaction.connection
            row = job_row(connection, job_id)
            known = findings.stored(connection, job_id)
            if (
                JobStatus(row.status) is not JobStatus.PAUSED
                or known is None
                or known.removals_asked is None
            ):
                raise Conflict(
                    f"Job {job_id!r} is {row.status} and asks nothing; only a job that is paused "
                    "because many images are gone can be confirmed or refused."
                )
            answered = replace(
                known,
                removals_asked=None,
                removals_allowed=known.removals_asked if is_allowed else 0,
            )
            findings.store(connection, job_id, answered)
            # Whoever asked for the same while it was paused wants what came since, too.
            again = bool(row.rerun_requested)
            leasing.restart(connection, job_id, self._now(transaction), runs_again=again)
            job = job_of(job_row(connection, job_id))
        self._announce()
        return job

    def list_jobs(self, *, status: JobStatus | None, limit: int, cursor: str | None) -> Page[Job]:
        """Return jobs, newest first."""
        with self._database.read() as snapshot:
            return listing.jobs_page(snapshot.connection, status, limit, cursor)

    def failures(self, job_id: str, *, limit: int, cursor: str | None) -> Page[JobFailure]:
        """Return the images that failed, by path."""
        with self._database.read() as snapshot:
            job_row(snapshot.connection, job_id)
            return listing.failures_page(snapshot.connection, job_id, limit, cursor)

    def recent_images_per_second(self, index_id: int) -> float | None:
        """Return the sum of the workers' rates in the chunks done last on this index."""
        last_job = (
            select(jobs.c.job_id)
            .where(jobs.c.index_id == index_id, jobs.c.progressed_at.is_not(None))
            .order_by(jobs.c.progressed_at.desc())
            .limit(1)
            .scalar_subquery()
        )
        last_chunks = (
            select(job_chunks.c.worker_id, job_chunks.c.images, job_chunks.c.seconds)
            .where(job_chunks.c.job_id == last_job, job_chunks.c.done_at.is_not(None))
            .order_by(job_chunks.c.done_at.desc())
            .limit(_RATED_CHUNKS)
            .subquery()
        )
        by_worker = select(
            func.sum(last_chunks.c.images).label("images"),
            func.sum(last_chunks.c.seconds).label("seconds"),
        ).group_by(last_chunks.c.worker_id)
        with self._database.read() as snapshot:
            rows = snapshot.connection.execute(by_worker).all()
        rates = [row.images / row.seconds for row in rows if row.seconds > 0]
        return sum(rates) if rates else None

    def worker_rates(self) -> dict[tuple[str, str], float]:
        """Return what was recorded of the workers' rates."""
        with self._database.read() as snapshot:
            return rates.stored(snapshot.connection)

    def record_worker_rates(self, measured: Mapping[tuple[str, str], float]) -> None:
        """Store rates, and forget those that were measured long ago."""
        with self._database.transaction() as transaction:
            rates.store(transaction.connection, measured, self._now(transaction))

    def request_cancel(self, job_id: str) -> Job:
        """Cancel a waiting job at once, tell a running one to stop; return it as it is now."""
        with self._database.transaction() as transaction:
            connection = transaction.connection
            row = job_row(connection, job_id)
            status = JobStatus(row.status)
            if status in (JobStatus.COMPLETED, JobStatus.FAILED):
                raise Conflict(f"Job {job_id!r} has {status}; only an active one is cancelled.")
            if status is not JobStatus.CANCELLED:
                connection.execute(
                    update(jobs).where(jobs.c.job_id == job_id).values(cancel_requested=True)
                )
                if status is not JobStatus.RUNNING:
                    leasing.end(connection, row, JobStatus.CANCELLED, None, self._now(transaction))
            return job_of(job_row(connection, job_id))

    def retry(self, job_id: str) -> Job:
        """Queue a job again: the chunks that are not done, and the images that failed."""
        with self._database.transaction() as transaction:
            connection = transaction.connection
            row = job_row(connection, job_id)
            status = JobStatus(row.status)
            if not status.is_final:
                raise Conflict(f"Job {job_id!r} is {status}; wait for its end, or cancel it.")
            if status is JobStatus.COMPLETED and row.failed_images == 0:
                raise Conflict(f"Job {job_id!r} completed without failures; nothing is left to do.")
            if status is JobStatus.COMPLETED and JobKind(row.kind) is JobKind.CHANGE_MODEL:
                raise Conflict(
                    f"Job {job_id!r} has changed the model, and nothing of that is left to do; "
                    "images that it could not read are indexed once their files are mended."
                )
            twin = submission.active_twin(connection, row.index_id, row.dedupe_key)
            if twin is not None:
                raise Conflict(
                    f"The same request is active as job {twin.job_id!r}; wait for that one."
                )
            if row.is_planned:
                plans.plan_retry(connection, row)
            leasing.restart(connection, job_id, self._now(transaction))
            job = job_of(job_row(connection, job_id))
        self._announce()
        return job

    def lease_next(self, owner: str, lanes: Collection[Lane] = tuple(Lane)) -> Lease | None:
        """Take the job of these lanes that should run next, or return None."""
        with self._database.read() as snapshot:
            if not leasing.has_work(snapshot.connection, lanes, self._now(snapshot)):
                return None
        with self._database.transaction() as transaction:
            return leasing.lease_next(
                transaction.connection, owner, lanes, self._lease_seconds, self._now(transaction)
            )

    def renew(self, lease: Lease) -> None:
        """Extend the lease. Raises LeaseLost."""
        with self._database.transaction() as transaction:
            leasing.renew(
                transaction.connection, lease, self._lease_seconds, self._now(transaction)
            )

    def expire_own(self, owner_prefix: str) -> int:
        """Expire all leases of a former life of this controller; return their number."""
        with self._database.transaction() as transaction:
            return leasing.expire_own(transaction.connection, owner_prefix)

    def should_yield(self, lease: Lease) -> bool:
        """Say whether a job of higher priority waits for the same lane. Raises LeaseLost."""
        with self._database.read() as snapshot:
            return leasing.should_yield(snapshot.connection, lease, self._now(snapshot))

    def is_cancel_requested(self, lease: Lease) -> bool:
        """Say whether somebody asked for the job to be cancelled. Raises LeaseLost."""
        with self._database.read() as snapshot:
            return leasing.cancel_requested(snapshot.connection, lease)

    def requeue(
        self, lease: Lease, *, error: str | None, delay_seconds: float, count_attempt: bool
    ) -> None:
        """Give the job back, to be run again after a delay, keeping its checkpoint.

        A job that is to be cancelled is ended instead.
        """
        with self._database.transaction() as transaction:
            leasing.requeue(
                transaction.connection,
                lease,
                error=error,
                delay_seconds=delay_seconds,
                count_attempt=count_attempt,
                now=self._now(transaction),
            )
        self._announce()

    def finish(self, lease: Lease, status: JobStatus, error: str | None) -> Job:
        """End the job, pause it, or queue it once more; ends the lease; see the contract."""
        with self._database.transaction() as transaction:
            leasing.finish(transaction.connection, lease, status, error, self._now(transaction))
            job = job_of(job_row(transaction.connection, lease.job.job_id))
        self._announce()  # Another job may wait for this index.
        return job

    def attempts_without_progress(self, job_id: str) -> int:
        """Return how often an error gave the job up since its last checkpoint."""
        with self._database.read() as snapshot:
            return int(job_row(snapshot.connection, job_id).attempts)

    def save_plan(
        self,
        lease: Lease,
        chunks: Iterable[PlannedChunk],
        *,
        total_images: int,
        settled_images: int,
        failures: Sequence[ImageFailure],
    ) -> None:
        """Store the job's chunks in one transaction; see the contract."""
        with self._database.transaction() as transaction:
            plans.save_plan(
                transaction.connection,
                held_row(transaction.connection, lease),
                chunks,
                total_images=total_images,
                settled_images=settled_images,
                failures=failures,
            )

    def record_findings(self, lease: Lease, found: ScanFindings) -> None:
        """Store what the job's scan found, in place of what was stored."""
        with self._database.transaction() as transaction:
            held_row(transaction.connection, lease)
            findings.store(transaction.connection, lease.job.job_id, found)

    def add_removals(self, lease: Lease, chunks: Iterable[PlannedChunk]) -> None:
        """Add chunks that remove to a job that has its plan."""
        with self._database.transaction() as transaction:
            job = held_row(transaction.connection, lease)
            plans.add(transaction.connection, job, chunks)

    def extend_plan(self, lease: Lease, chunks: Iterable[PlannedChunk]) -> None:
        """Add chunks to a job that has its plan; their images count among its own."""
        with self._database.transaction() as transaction:
            job = held_row(transaction.connection, lease)
            plans.extend(transaction.connection, job, chunks)

    def split_chunk(self, lease: Lease, number: int, sizes: Sequence[int]) -> list[Chunk]:
        """Put several chunks in the place of a planned one; see the contract."""
        with self._database.transaction() as transaction:
            job = held_row(transaction.connection, lease)
            return plans.split(transaction.connection, job, number, sizes)

    def retry_failures(
        self, lease: Lease, reasons: Collection[FailureReason], *, below_attempts: int
    ) -> int:
        """Plan anew the job's images that failed for one of these reasons, and return how many."""
        with self._database.transaction() as transaction:
            job = held_row(transaction.connection, lease)
            return plans.plan_retry(
                transaction.connection, job, reasons=reasons, below_attempts=below_attempts
            )

    def chunks(self, job_id: str, state: ChunkState) -> list[Chunk]:
        """Return the job's chunks in that state, by number; committed ones without paths."""
        with self._database.read() as snapshot:
            return plans.in_state(snapshot.connection, job_id, state)

    def checkpoint_embedded(self, transaction: Transaction, lease: Lease, done: ChunkDone) -> None:
        """Record that a chunk is embedded, and extend the lease. Raises LeaseLost, NotFound."""
        held_row(transaction.connection, lease)
        now = self._now(transaction)
        plans.record_embedded(
            transaction.connection,
            lease.job.job_id,
            done,
            lease_until=now + self._lease_seconds,
            now=now,
        )

    def checkpoint_committed(
        self, transaction: Transaction, job_id: str, numbers: Sequence[int]
    ) -> None:
        """Record that chunks are in a published generation."""
        plans.record_committed(transaction.connection, job_id, numbers)

    def assert_held(self, transaction: Transaction, lease: Lease) -> None:
        """Raise LeaseLost unless the lease is held, and keep it so until the transaction ends."""
        held_row(transaction.connection, lease)

    def replan_chunks(self, lease: Lease, numbers: Sequence[int]) -> None:
        """Put embedded chunks back to planned, because their part files are gone."""
        with self._database.transaction() as transaction:
            held_row(transaction.connection, lease)
            plans.replan(transaction.connection, lease.job.job_id, numbers)

    def raise_fence(self, index_id: int, fence: int) -> None:
        """Let all later leases of the index have a higher fence than this one."""
        with self._database.transaction() as transaction:
            transaction.connection.execute(
                update(indexes)
                .where(indexes.c.index_id == index_id, indexes.c.fence < fence)
                .values(fence=fence)
            )

    def next_fence(self, index_id: int, *, above: int) -> int:
        """Return a fence that is higher than this one and than those of all leases so far."""
        of_index = indexes.c.index_id == index_id
        with self._database.transaction() as transaction:
            connection = transaction.connection
            known = connection.execute(select(indexes.c.fence).where(of_index)).scalar_one()
            fence = 1 + max(int(known), above)
            connection.execute(update(indexes).where(of_index).values(fence=fence))
        return fence

    def active_job_ids(self, index_id: int) -> list[str]:
        """Return the jobs of an index that have not ended, in the order of their creation."""
        query = (
            select(jobs.c.job_id)
            .where(jobs.c.index_id == index_id, jobs.c.status.in_(ACTIVE))
            .order_by(jobs.c.created_at, jobs.c.job_id)
        )
        with self._database.read() as snapshot:
            return [str(job_id) for job_id in snapshot.connection.execute(query).scalars()]

    def is_running(self, index_id: int, lane: Lane) -> bool:
        """Say whether a job runs in this lane of an index."""
        query = select(jobs.c.job_id).where(
            jobs.c.index_id == index_id,
            jobs.c.kind.in_([kind.value for kind in JobKind if kind.lane is lane]),
            jobs.c.status == JobStatus.RUNNING.value,
        )
        with self._database.read() as snapshot:
            return snapshot.connection.execute(query).first() is not None

    def embedded_job_ids(self, index_id: int, lane: Lane = Lane.FLOW) -> list[str]:
        """Return the jobs of a lane that have embedded chunks, oldest submission first."""
        # From the few chunks to their jobs, not the other way: of past jobs there may be a hundred
        # thousand. The state is written out, since SQLite uses an index of some rows only for a
        # condition that it can see.
        state = literal_column(f"'{ChunkState.EMBEDDED.value}'", Text)
        embedded = select(job_chunks.c.job_id).where(job_chunks.c.state == state).distinct()
        with self._database.read() as snapshot:
            connection = snapshot.connection
            job_ids = connection.execute(embedded).scalars().all()
            if not job_ids:
                return []
            query = (
                select(jobs.c.job_id)
                .where(
                    jobs.c.job_id.in_(job_ids),
                    jobs.c.index_id == index_id,
                    jobs.c.kind.in_([kind.value for kind in JobKind if kind.lane is lane]),
                )
                .order_by(jobs.c.created_at, jobs.c.job_id)
            )
            return [str(job_id) for job_id in connection.execute(query).scalars()]

    def _now(self, snapshot: Snapshot) -> float:
        return snapshot.now() if self._clock is None else self._clock()

    def _announce(self) -> None:
        with self._listening:
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener()
