"""Backups of the database, the last few of which are kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog

from imagedex.core.errors import StorageError
from imagedex.core.times import utc_now
from imagedex.database import Database
from imagedex.jobs import JobRun

_NAME = re.compile(r"imagedex-(\d{8}T\d{6}Z)\.db")
_FORM = "%Y%m%dT%H%M%SZ"

_log = structlog.get_logger(__name__)


class DatabaseBackups:
    """The backups of one database, in a directory of mode 0700."""

    def __init__(
        self,
        database: Database,
        directory: Path,
        *,
        keep: int,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._directory = directory
        self._keep = keep
        self._now = now

    def paths(self) -> list[Path]:
        """Return the backups that are there, oldest first."""
        if not self._directory.is_dir():
            return []
        return sorted(path for path in self._directory.iterdir() if _NAME.fullmatch(path.name))

    def make(self) -> Path:
        """Make one, and delete the oldest ones beyond those to keep. Raises StorageError."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._directory / f"imagedex-{self._now():{_FORM}}.db"
            self._database.back_up(path)
            for old in self.paths()[: -self._keep]:
                old.unlink(missing_ok=True)
            for left in self._directory.glob(".imagedex-*.tmp*"):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"The backups in {str(self._directory)!r} could not be kept: {error.strerror}; "
                "check IMAGEDEX_BACKUP__DIRECTORY."
            ) from error
        return path

    def run(self, run: JobRun) -> None:
        """Run a backup job: make one."""
        path = self.make()
        _log.info("database_backed_up", path=str(path), job_id=run.lease.job.job_id)
