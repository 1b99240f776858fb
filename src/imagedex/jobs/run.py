"""One run of a job, as its handler sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from imagedex.core.errors import ImagedexError, LeaseLost
from imagedex.jobs.interfaces import JobStore
from imagedex.jobs.records import Lease

_log = structlog.get_logger(__name__)


class JobCancelled(Exception):
    """Somebody asked for the job to be cancelled; let it pass through the handler."""


class JobYielded(Exception):
    """The job is to go on later, from its checkpoint; let it pass through the handler."""

    def __init__(self, reason: str, *, delay_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.delay_seconds = delay_seconds  # Other jobs of the index may run meanwhile.


class JobPaused(Exception):
    """The job waits for an answer; let it pass through the handler."""

    def __init__(self, reason: str, *, removals: int) -> None:
        super().__init__(reason)
        self.removals = removals  # Images whose removal is to be allowed or refused.


class JobRun:
    """The right to run a job, for as long as ``checkpoint`` raises nothing.

    Safe to call from several threads.
    """

    def __init__(
        self,
        store: JobStore,
        lease: Lease,
        *,
        closing: threading.Event,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lease = lease
        self._store = store
        self._closing = closing
        self._monotonic = monotonic
        self._is_lost = False
        # Nobody can take over before this moment; it moves with each renewal. So the run
        # knows that it may have lost the job even when whoever renews its lease has died.
        self._held_until = monotonic() + store.lease_seconds

    def checkpoint(self) -> None:
        """Call at each chunk boundary, and every second or so while waiting for chunks.

        Raises LeaseLost when another owner may have taken over (write nothing more),
        JobYielded when the runner is closing or a job of higher priority waits for the same
        index, JobCancelled when somebody asked for it.
        """
        self.require_going_on()
        try:
            if self._store.should_yield(self.lease):
                raise JobYielded("A job of higher priority waits for the same index.")
        except LeaseLost:
            self.mark_lost()
            raise

    def require_going_on(self) -> None:
        """Do what ``checkpoint`` does, but make way for no other job.

        For work that would have to begin anew: two jobs that made way for each other before
        either was done would never end.
        """
        if self._has_lapsed():
            raise LeaseLost(
                f"The lease of job {self.lease.job.job_id!r} was not renewed in time, so another "
                "owner may have taken over; this run stops."
            )
        if self._closing.is_set():
            raise JobYielded("The runner is closing.")
        try:
            if self._store.is_cancel_requested(self.lease):
                raise JobCancelled("The job was cancelled by request.")
        except LeaseLost:
            self.mark_lost()
            raise

    def is_cancelled(self) -> bool:
        """Say whether somebody asked for the job to be cancelled, as far as can be seen now.

        For a thread that watches for it; ``checkpoint`` is what ends a run.
        """
        try:
            return self._store.is_cancel_requested(self.lease)
        except ImagedexError as error:
            _log.warning("job_cancel_not_seen", job_id=self.lease.job.job_id, error=str(error))
            return False

    def renew(self) -> None:
        """Extend the lease. Raises LeaseLost, after which the run should stop."""
        # The lease counts from before the call, since nobody knows how long the call takes.
        held_until = self._monotonic() + self._store.lease_seconds
        try:
            self._store.renew(self.lease)
        except LeaseLost:
            self.mark_lost()
            raise
        self._held_until = held_until

    def mark_lost(self) -> None:
        """Make the run stop at its next checkpoint."""
        self._is_lost = True

    def _has_lapsed(self) -> bool:
        return self._is_lost or self._monotonic() >= self._held_until
