"""What the durable queue is to the rest of Imagedex."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from imagedex.core.images import FailureReason, ImageFailure
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
    Priority,
    ScanFindings,
    WorkerShare,
)

if TYPE_CHECKING:
    from imagedex.database import Transaction

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to submit."""

    index_id: int
    kind: JobKind
    request: Mapping[str, Any]
    priority: Priority
    dedupe_key: str  # Equal keys mean the same request; only one of them is active at a time.
    images_count: int = 0  # When it is known beforehand.
    runs_again: bool = True  # When it is submitted again while it runs, after it completes.


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's promise that requests with this key are the same request (kept for 24 h).

    Source: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
    """

    client: str  # Id of the API key, so that clients do not meet each other's keys.
    key: str
    request_hash: str


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """Some of many, newest first for jobs, in order of path for failures."""

    items: tuple[ItemT, ...]
    total: int
    next_cursor: str | None


class JobStore(Protocol):
    """Jobs in the database. Safe to call from several threads and processes.

    At most one job runs in each lane of an index. Every change that a lease's holder makes is
    refused with LeaseLost once the lease has passed to another owner.
    """

    @property
    def lease_seconds(self) -> float:
        """After this silence of its owner a job may be taken over."""
        ...

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` whenever this process has made work that could be leased.

        It is called after the change is durable, in the thread that made it, and must return
        at once. Returns a function that ends the subscription.
        """
        ...

    def submit(self, new: NewJob, idempotency: IdempotencyKey | None = None) -> Job:
        """Store a job, or return the one that this request has already made.

        That is the active job with the same ``dedupe_key``, or the job of the same
        idempotency key. Raises InvalidRequest when that key was used for another request.

        No change that came before this call is missed: an active job that runs, or has its plan
        already, runs once more after it has completed. To repeat a request with its idempotency
        key asks for nothing new.
        """
        ...

    def due_at(self, schedule: str, times: str) -> float | None:
        """Return when a schedule of these times is due; None for one that is new or has changed."""
        ...

    def submit_scheduled(
        self,
        schedule: str,
        times: str,
        next_after: Callable[[float], float],
        requests: Sequence[NewJob],
        *,
        now: float,
    ) -> tuple[list[Job], float]:
        """Submit the jobs of a schedule if it is due, and note when it is next: both or neither.

        Returns the jobs, those that were active already included, and when it is due next. A
        schedule that is new, or has other ``times`` than before, is due first after ``now``. Of
        several callers one submits.
        """
        ...

    def get(self, job_id: str) -> Job:
        """Return a job. Raises NotFound."""
        ...

    def get_with_shares(self, job_id: str) -> tuple[Job, list[WorkerShare]]:
        """Return a job and what each worker did for it so far. Raises NotFound."""
        ...

    def findings(self, job_id: str) -> ScanFindings | None:
        """Return what a job's scan found; None before that, and for a job that does not scan."""
        ...

    def answer_removals(self, job_id: str, *, is_allowed: bool) -> Job:
        """Let a paused job go on, with or without the removals that it asked about.

        Raises NotFound, and Conflict for a job that asked nothing.
        """
        ...

    def list_jobs(self, *, status: JobStatus | None, limit: int, cursor: str | None) -> Page[Job]:
        """Return jobs, newest first. Raises InvalidRequest for a cursor that is none.

        ``total`` counts all jobs of that status. Jobs that come while a client pages neither
        repeat nor displace those on later pages.
        """
        ...

    def failures(self, job_id: str, *, limit: int, cursor: str | None) -> Page[JobFailure]:
        """Return the images that failed, by path. Raises NotFound, InvalidRequest (cursor).

        An image that is being retried stays listed until it succeeds; it does not count in the
        job's ``failed_images`` meanwhile.
        """
        ...

    def recent_images_per_second(self, index_id: int) -> float | None:
        """Return the rate of the chunks done last on this index, or None when there are none."""
        ...

    def worker_rates(self) -> Mapping[tuple[str, str], float]:
        """Return the rates that were recorded: images per second by slot and fingerprint.

        In the order in which they were measured.
        """
        ...

    def record_worker_rates(self, measured: Mapping[tuple[str, str], float]) -> None:
        """Store rates beside those that are stored, or in their place.

        Those that nobody has measured for months are forgotten.
        """
        ...

    def request_cancel(self, job_id: str) -> Job:
        """Cancel a waiting job at once, tell a running one to stop; return it as it is now.

        A cancelled job stays cancelled when it is cancelled again; Conflict for one that
        completed or failed; NotFound.
        """
        ...

    def retry(self, job_id: str) -> Job:
        """Queue a job again: the chunks that are not done, and the images that failed.

        Conflict while it is active, or when it completed without failures; NotFound.
        """
        ...

    def lease_next(self, owner: str, lanes: Collection[Lane] = tuple(Lane)) -> Lease | None:
        """Take the job of these lanes that should run next, or return None.

        Order: priority (risen by waiting), then age. Jobs of an index and lane that has a
        running job, and jobs that wait out a back-off, are passed over. An expired lease is taken
        over.
        """
        ...

    def renew(self, lease: Lease) -> None:
        """Extend the lease. Raises LeaseLost."""
        ...

    def expire_own(self, owner_prefix: str) -> int:
        """Expire all leases of a former life of this controller; return their number.

        Only after the home's lock was taken: then no such owner can be alive.
        """
        ...

    def should_yield(self, lease: Lease) -> bool:
        """Say whether a job of higher priority (risen by waiting) waits for this one's lane.

        Raises LeaseLost.
        """
        ...

    def is_cancel_requested(self, lease: Lease) -> bool:
        """Say whether somebody asked for the job to be cancelled. Raises LeaseLost."""
        ...

    def requeue(
        self, lease: Lease, *, error: str | None, delay_seconds: float, count_attempt: bool
    ) -> None:
        """Give the job back, to be run again after a delay, keeping its checkpoint.

        A job whose cancellation was requested meanwhile is cancelled instead.
        ``count_attempt`` counts it among the attempts without progress.
        """
        ...

    def finish(self, lease: Lease, status: JobStatus, error: str | None) -> Job:
        """End the job (completed, failed, cancelled) or pause it; ends the lease.

        Returns the job as it is then. One that completed, and whose request was submitted again
        meanwhile, is queued once more, without its plan and its failures and with all counts of
        images at zero; or it is cancelled when that was requested. A job that fails or is
        cancelled forgets that its request came again.
        """
        ...

    def attempts_without_progress(self, job_id: str) -> int:
        """Return how often an error gave the job up since its last checkpoint."""
        ...

    def save_plan(
        self,
        lease: Lease,
        chunks: Iterable[PlannedChunk],
        *,
        total_images: int,
        settled_images: int,
        failures: Sequence[ImageFailure],
    ) -> None:
        """Store the job's chunks, replacing any plan that was not finished, in one transaction.

        Chunks are numbered from 0, or from where an earlier plan of the job ended: a number is
        never used twice, since published segments name the chunks that they hold.

        ``settled_images`` need no worker (unchanged, gone, or failed while planning);
        ``failures`` are those that failed while planning. Chunks that remove begin as
        embedded, since only their commit is left to do.
        """
        ...

    def record_findings(self, lease: Lease, found: ScanFindings) -> None:
        """Store what the job's scan found, in place of what was stored. Raises LeaseLost."""
        ...

    def add_removals(self, lease: Lease, chunks: Iterable[PlannedChunk]) -> None:
        """Add chunks that remove to a job that has its plan. They begin as embedded.

        Their images are none of those that the job counts. Raises LeaseLost.
        """
        ...

    def extend_plan(self, lease: Lease, chunks: Iterable[PlannedChunk]) -> None:
        """Add chunks to a job that has its plan; their images count among its own.

        Raises LeaseLost.
        """
        ...

    def split_chunk(self, lease: Lease, number: int, sizes: Sequence[int]) -> list[Chunk]:
        """Put chunks of so many images in the place of a planned one, and return them, in order.

        They have new numbers, since a number names the same images for ever; so the one of the
        chunk that was split is used no more. Images that it was to try again are tried by the new
        ones. Raises LeaseLost, NotFound, Conflict for a chunk that is not planned, and ValueError
        for sizes that are not its images.
        """
        ...

    def retry_failures(
        self, lease: Lease, reasons: Collection[FailureReason], *, below_attempts: int
    ) -> int:
        """Plan anew the job's images that failed for one of these reasons, and return how many.

        Only those that were tried less than ``below_attempts`` times. Raises LeaseLost.
        """
        ...

    def chunks(self, job_id: str, state: ChunkState) -> list[Chunk]:
        """Return the job's chunks in that state, by number."""
        ...

    def checkpoint_embedded(self, transaction: Transaction, lease: Lease, done: ChunkDone) -> None:
        """Record that a chunk is embedded; counts progress; repeating it changes nothing."""
        ...

    def checkpoint_committed(
        self, transaction: Transaction, job_id: str, numbers: Sequence[int]
    ) -> None:
        """Record that chunks are in a published generation (also used when reconciling).

        Needs no lease: what is published is published. Repeating it, or naming jobs and chunks
        that the database does not know, changes nothing. A chunk that was never recorded as
        embedded counts as processed from now on.
        """
        ...

    def assert_held(self, transaction: Transaction, lease: Lease) -> None:
        """Raise LeaseLost unless the lease is held, and keep it so until the transaction ends."""
        ...

    def replan_chunks(self, lease: Lease, numbers: Sequence[int]) -> None:
        """Put embedded chunks back to planned, because their part files are gone.

        Their images count as not processed again. Chunks in another state stay as they are.
        """
        ...

    def raise_fence(self, index_id: int, fence: int) -> None:
        """Let all later leases of the index have a higher fence than this one.

        For reconciliation: an index whose database was lost has published fences already.
        """
        ...

    def next_fence(self, index_id: int, *, above: int) -> int:
        """Return a fence that is higher than this one and than those of all leases so far.

        Later leases have a higher one still, and those that are held have a lower one.
        """
        ...

    def active_job_ids(self, index_id: int) -> list[str]:
        """Return the jobs of an index that have not ended."""
        ...

    def is_running(self, index_id: int, lane: Lane) -> bool:
        """Say whether a job runs in this lane of an index."""
        ...

    def embedded_job_ids(self, index_id: int, lane: Lane = Lane.FLOW) -> list[str]:
        """Return the jobs of a lane that have embedded chunks, oldest submission first.

        Whatever their status: one that failed or was cancelled leaves such chunks behind, and
        they can still be published. A removal counts as embedded from its planning on.
        """
        ...
