"""What only the one process does that owns the jobs of a database."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import structlog

from imagedex.app.engine import make_engine
from imagedex.app.foundations import Foundations
from imagedex.app.running import Running
from imagedex.app.schedules import schedules
from imagedex.app.searching import Searching
from imagedex.app.snapshots import snapshot_jobs
from imagedex.core.errors import ImagedexError
from imagedex.engine import WorkerInfo
from imagedex.jobs import Scheduler

_log = structlog.get_logger(__name__)


class Duty:
    """Runs jobs and keeps schedules, from ``start`` to ``close``.

    It has one life: whoever becomes the owner again makes another one.
    """

    def __init__(self, base: Foundations, searching: Searching, *, keeps_schedules: bool) -> None:
        """Take what the process stands on; nothing is begun yet."""
        base = base.owned()
        self._base = base
        self._keeps_schedules = keeps_schedules
        self._searching = searching
        self._engine = make_engine(base)
        snapshots = snapshot_jobs(base, searching)
        self._running = Running(base, searching, snapshots, self._engine)
        self._scheduler = Scheduler(base.jobs, schedules(base, snapshots))

    def start(self) -> None:
        """Bring all catalogs to what their indexes hold, and begin to run jobs.

        A job that was running when its owner died goes on after its last chunk.
        """
        self._running.expire_own()
        for index_prefix in self._known_prefixes():
            self._open(index_prefix)
        self._running.start()
        if self._keeps_schedules:
            self._keep_schedules()

    def _keep_schedules(self) -> None:
        settings = self._base.settings
        if self._base.database.is_shared and settings.backup.schedule:
            _log.warning(
                "database_not_backed_up",
                database=self._base.database.where,
                remedy="use pg_dump, and set IMAGEDEX_BACKUP__SCHEDULE to nothing",
            )
        self._scheduler.start()

    def workers(self) -> Sequence[WorkerInfo]:
        """Return the workers that are connected, and what they are doing."""
        return self._engine.workers()

    def stalled_threads(self, patience_seconds: float) -> list[str]:
        """Return the threads that run jobs and no longer do; never blocks."""
        return self._running.stalled_threads(patience_seconds)

    def close(self, *, is_lost: bool = False) -> bool:
        """Stop running jobs (they resume after their last chunk) and end the workers.

        Returns whether all jobs stopped in time. ``is_lost`` says that another process has taken
        the jobs over.
        """
        self._scheduler.close()
        have_stopped = self._running.close(is_lost=is_lost)
        self._engine.close()
        return have_stopped

    def _known_prefixes(self) -> list[Path]:
        """Return the indexes of the catalog, and the default one, which a new database lacks."""
        known = [index.index_prefix for index in self._base.catalog.list_indexes()]
        default = self._base.settings.effective_index_prefix
        return known if default in known or not os.path.lexists(default) else [*known, default]

    def _open(self, index_prefix: Path) -> None:
        # An index whose share is away or damaged must not keep the others from being served.
        # Whoever asks it is told why, and so is readiness.
        try:
            self._running.publisher.reconcile(index_prefix)
        except ImagedexError as error:
            _log.error("index_not_opened", index_prefix=str(index_prefix), error=str(error))
        else:
            self._searching.refresh_if_served(index_prefix)
