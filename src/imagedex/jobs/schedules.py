"""Jobs that are submitted at set times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from imagedex.jobs.cron import CronTimes
from imagedex.jobs.interfaces import JobStore, NewJob

_LONGEST_PAUSE_SECONDS = 30.0  # A clock may be put right, and a laptop may sleep.

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """What is submitted, and when."""

    name: str  # Under which the database knows when it is due.
    times: CronTimes
    requests: Callable[[], Sequence[NewJob]]


class Scheduler:
    """Submits the jobs of schedules when they are due, in a thread of its own, until it is closed.

    A time that passed while no controller ran is made up for once, at the next start. Of several
    controllers on one database one submits.
    """

    def __init__(
        self,
        store: JobStore,
        schedules: Sequence[Schedule],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take the schedules; ``now`` is the clock that their times are of."""
        self._store = store
        self._schedules = schedules
        self._now = now
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="schedules", daemon=True)

    def start(self) -> None:
        """Begin; what is due is submitted at once."""
        self._thread.start()

    def close(self) -> None:
        """End. Without a start this does nothing."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def submit_due(self) -> float:
        """Submit what is due now; return the seconds until something is, at most half a minute."""
        pause = _LONGEST_PAUSE_SECONDS
        for schedule in self._schedules:
            now = self._now()
            due_at = self._store.due_at(schedule.name, str(schedule.times))
            # Outside of the transaction that submits, since it may look at the storage.
            requests = schedule.requests() if due_at is not None and due_at <= now else ()
            jobs, due_at = self._store.submit_scheduled(
                schedule.name, str(schedule.times), schedule.times.next_after, requests, now=now
            )
            for job in jobs:
                _log.info("job_scheduled", schedule=schedule.name, job_id=job.job_id)
            pause = min(pause, due_at - now)
        return max(0.0, pause)

    def _work(self) -> None:
        pause = 0.0
        while not self._closing.wait(pause):
            try:
                pause = self.submit_due()
            except Exception:
                # Whatever it was, what comes later must not be missed.
                _log.exception("schedules_failed")
                pause = _LONGEST_PAUSE_SECONDS
