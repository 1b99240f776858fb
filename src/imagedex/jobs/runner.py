"""Threads that run jobs, one at a time each."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

import structlog

from imagedex.core.errors import ImagedexError, LeaseLost, StorageError, Unavailable
from imagedex.jobs.interfaces import JobStore
from imagedex.jobs.records import JobKind, JobStatus, Lane, Lease
from imagedex.jobs.run import JobCancelled, JobPaused, JobRun, JobYielded

Handler = Callable[[JobRun], None]
"""Does a job. It returns when the job is complete; it may be run again from any checkpoint."""

MAX_ATTEMPTS = 5  # Without progress between them.

# A share that is away or a disk that is full is nobody's fault and most often passes; with
# the back-off this waits about a quarter of an hour for it.
MAX_OUTAGE_ATTEMPTS = 20
_MAX_BACKOFF_SECONDS = 60.0
_ALL_LANES = tuple(Lane)
_FLOW_ALONE = (Lane.FLOW,)

_log = structlog.get_logger(__name__)


class JobRunner:
    """Leases jobs and hands them to the handler of their kind, until it is closed.

    One of its threads takes none of the upkeep: rebuilds of several indexes can take hours, and
    no image that came in meanwhile may wait for them.

    What a handler does becomes the job's status: it returns, and the job is completed; it raises
    JobCancelled or JobYielded (from ``JobRun.checkpoint``), and the job is cancelled or goes
    back into the line; JobPaused, and it waits for an answer; a retryable error, or one that
    nobody foresaw, runs it again after 2, 4, 8 and 16 seconds, and fails it the fifth time
    without progress; when storage fails or something is unavailable, it is tried again after at
    most 60 seconds and fails the twentieth time; any other ImagedexError fails it. After LeaseLost
    nothing is written: the job is another's.
    """

    def __init__(
        self,
        store: JobStore,
        handlers: Mapping[JobKind, Handler],
        *,
        owner: str,
        threads: int = 2,
        poll_seconds: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a runner that leases as ``owner``, a name that no other runner has.

        A single thread takes all jobs.

        Jobs that this process submits are begun at once; those of other processes, and those
        whose back-off has passed, within ``poll_seconds``.
        """
        self._store = store
        self._handlers = handlers
        self._owner = owner
        self._poll_seconds = poll_seconds
        self._monotonic = monotonic
        self._closing = threading.Event()
        self._renewing_ends = threading.Event()
        self._runs: set[JobRun] = set()
        self._runs_lock = threading.Lock()
        self._wake_ups = 0
        self._woken = threading.Condition()
        self._unsubscribe: Callable[[], None] | None = None
        self._workers = [
            threading.Thread(
                target=self._work,
                args=(_ALL_LANES if number < max(1, threads - 1) else _FLOW_ALONE,),
                name=f"job-runner-{number}",
                daemon=True,
            )
            for number in range(threads)
        ]
        self._renewer = threading.Thread(target=self._renew, name="job-renewer", daemon=True)
        # When each thread moved last; infinite while it runs a job, which may take hours.
        self._moved_at: dict[str, float] = {}

    def start(self) -> None:
        """Begin to run jobs. A runner is started once, and not again after it was closed."""
        self._unsubscribe = self._store.subscribe(self.wake)
        for thread in (self._renewer, *self._workers):
            thread.start()
            self._moved_at.setdefault(thread.name, self._monotonic())

    def stalled_threads(self, patience_seconds: float) -> list[str]:
        """Return the threads that died, or wait for longer than they should; never blocks.

        A thread that runs a job counts as moving, for as long as the job takes: nobody can tell
        from outside how long that may be. One that looks for a job, or renews leases, is late
        ``patience_seconds`` after it should have moved.
        """
        if self._closing.is_set():
            return []
        pauses = [(thread, self._poll_seconds) for thread in self._workers]
        pauses.append((self._renewer, self._renewal_seconds))
        return [
            thread.name
            for thread, pause_seconds in pauses
            if self._is_stalled(thread, pause_seconds + patience_seconds)
        ]

    def _is_stalled(self, thread: threading.Thread, patience_seconds: float) -> bool:
        moved_at = self._moved_at.get(thread.name)
        if moved_at is None:  # It has not begun.
            return False
        return not thread.is_alive() or self._monotonic() - moved_at > patience_seconds

    def wake(self) -> None:
        """Look for work now."""
        with self._woken:
            self._wake_ups += 1
            self._woken.notify_all()

    def abandon(self) -> None:
        """Let no run write anything more: another process has taken them over. Then close."""
        self._closing.set()
        with self._runs_lock:
            for run in self._runs:
                run.mark_lost()

    def close(self, timeout_seconds: float = 10.0) -> bool:
        """Let running jobs stop at their next chunk, to be run again from there.

        Returns whether all did so in time; those that did not are taken over when their leases
        expire. Without a start, and when called again, this does nothing.
        """
        self._closing.set()
        self.wake()
        if self._unsubscribe is None:
            return True
        self._unsubscribe()
        deadline = time.monotonic() + timeout_seconds
        for thread in self._workers:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._renewing_ends.set()
        self._renewer.join(max(0.1, deadline - time.monotonic()))
        with self._runs_lock:
            left = [run.lease.job.job_id for run in self._runs]
        if left:
            _log.warning("jobs_did_not_stop", job_ids=left, timeout_seconds=timeout_seconds)
        return not left

    def _work(self, lanes: tuple[Lane, ...]) -> None:
        name = threading.current_thread().name
        while not self._closing.is_set():
            self._moved_at[name] = self._monotonic()
            seen = self._wake_ups
            try:
                lease = self._store.lease_next(self._owner, lanes)
            except Exception:
                # A full disk or a lost database must not end the loop: it goes on when they do.
                _log.exception("job_lease_failed")
                lease = None
            if lease is None:
                self._wait_for_work(seen)
            else:
                self._moved_at[name] = math.inf
                self._run(lease)

    def _wait_for_work(self, seen: int) -> None:
        """Wait unless somebody has called ``wake`` since ``seen`` was read."""
        with self._woken:
            self._woken.wait_for(
                lambda: self._wake_ups != seen or self._closing.is_set(), self._poll_seconds
            )

    def _run(self, lease: Lease) -> None:
        run = JobRun(self._store, lease, closing=self._closing, monotonic=self._monotonic)
        log = _log.bind(job_id=lease.job.job_id, owner=self._owner, fence=lease.fence)
        with self._runs_lock:
            self._runs.add(run)
        log.info("job_started", kind=lease.job.kind.value)
        try:
            self._handle(run)
        except LeaseLost as error:
            log.warning("job_lease_lost", error=str(error))
        except Exception:
            # The outcome could not be written. The lease expires and the job is run again.
            log.exception("job_outcome_not_recorded")
        finally:
            with self._runs_lock:
                self._runs.discard(run)

    def _handle(self, run: JobRun) -> None:
        """Call the handler and record what came of it. LeaseLost passes."""
        try:
            self._handlers[run.lease.job.kind](run)
        except LeaseLost:
            raise
        except JobCancelled:
            self._finish(run, JobStatus.CANCELLED, None)
        except JobPaused as reason:
            self._finish(run, JobStatus.PAUSED, str(reason))
        except JobYielded as reason:
            self._store.requeue(
                run.lease, error=None, delay_seconds=reason.delay_seconds, count_attempt=False
            )
            _log.info("job_yielded", job_id=run.lease.job.job_id, reason=str(reason))
        except ImagedexError as error:
            if error.retryable:
                is_outage = isinstance(error, StorageError | Unavailable)
                limit = MAX_OUTAGE_ATTEMPTS if is_outage else MAX_ATTEMPTS
                self._try_again(run, str(error), limit=limit)
            else:
                self._finish(run, JobStatus.FAILED, str(error))
        except BaseException as error:
            # Also SystemExit and the like: whatever a handler raises, it is this job's
            # trouble, and the thread has others to run.
            _log.exception("job_raised", job_id=run.lease.job.job_id)
            text = f"Unexpected {type(error).__name__}: {error}"
            self._try_again(run, text, limit=MAX_ATTEMPTS)
        else:
            self._finish(run, JobStatus.COMPLETED, None)

    def _try_again(self, run: JobRun, error: str, *, limit: int) -> None:
        attempts = self._store.attempts_without_progress(run.lease.job.job_id) + 1
        if attempts >= limit:
            self._finish(
                run, JobStatus.FAILED, f"{error} (given up after {attempts} attempts in a row)"
            )
            return
        delay_seconds = min(_MAX_BACKOFF_SECONDS, 2.0**attempts)
        self._store.requeue(run.lease, error=error, delay_seconds=delay_seconds, count_attempt=True)
        _log.warning(
            "job_requeued",
            job_id=run.lease.job.job_id,
            error=error,
            attempts=attempts,
            delay_seconds=delay_seconds,
        )

    def _finish(self, run: JobRun, status: JobStatus, error: str | None) -> None:
        job = self._store.finish(run.lease, status, error)
        if job.status.is_final or job.status is JobStatus.PAUSED:
            _log.info("job_ended", job_id=job.job_id, status=job.status.value, error=error)
        else:
            _log.info(
                "job_requeued",
                job_id=job.job_id,
                reason="The same request came again while the job was active.",
            )

    @property
    def _renewal_seconds(self) -> float:
        return self._store.lease_seconds / 3

    def _renew(self) -> None:
        """Keep the leases of all runs; a run whose lease is not renewed knows it by itself."""
        while not self._renewing_ends.wait(self._renewal_seconds):
            self._moved_at[self._renewer.name] = self._monotonic()
            with self._runs_lock:
                runs = list(self._runs)
            for run in runs:
                try:
                    run.renew()
                except LeaseLost:
                    _log.warning("job_lease_lost", job_id=run.lease.job.job_id)
                except Exception:
                    # Tried again in time for a passing trouble of the database.
                    _log.exception("job_renewal_failed", job_id=run.lease.job.job_id)
