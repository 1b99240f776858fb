"""Backups of the database at regular times, the last few of which are kept."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from imagedex.core.errors import ImagedexError, StorageError
from imagedex.core.times import utc_now
from imagedex.database import Database
from imagedex.database.backup import back_up

_NAME = re.compile(r"imagedex-(\d{8}T\d{6}Z)\.db")
_FORM = "%Y%m%dT%H%M%SZ"
_RETRY_SECONDS = 600.0

_log = structlog.get_logger(__name__)


class DatabaseBackups:
    """The backups of one database, in a directory of mode 0700."""

    def __init__(
        self,
        database: Database,
        directory: Path,
        *,
        interval: timedelta,
        keep: int,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._directory = directory
        self._interval = interval
        self._keep = keep
        self._now = now

    def paths(self) -> list[Path]:
        """Return the backups that are there, oldest first."""
        if not self._directory.is_dir():
            return []
        return sorted(path for path in self._directory.iterdir() if _NAME.fullmatch(path.name))

    def seconds_until_due(self) -> float:
        """Return when the next one is due; 0 or less for now, also when there is none."""
        times = [_time_of(path) for path in self.paths()]
        if not times:
            return 0.0
        # A clock that was wrong once must not put off backups for years.
        last = min(max(times), self._now())
        return (last + self._interval - self._now()).total_seconds()

    def make(self) -> Path:
        """Make one, and delete the oldest ones beyond those to keep. Raises StorageError."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._directory / f"imagedex-{self._now():{_FORM}}.db"
            back_up(self._database, path)
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


class BackupSchedule:
    """Makes backups when they are due, in a thread of its own, until it is closed."""

    def __init__(self, backups: DatabaseBackups) -> None:
        self._backups = backups
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="backups", daemon=True)

    def start(self) -> None:
        """Begin; a backup that is due is made at once."""
        self._thread.start()

    def close(self) -> None:
        """End, after a backup that is being made. Without a start this does nothing."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        pause = self._pause()
        while not self._closing.wait(pause):
            try:
                path = self._backups.make()
                _log.info("database_backed_up", path=str(path))
                pause = self._pause()
            except ImagedexError as error:
                _log.error("database_not_backed_up", error=str(error))
                pause = _RETRY_SECONDS
            except Exception:
                # Whatever it was, the next one must not be missed.
                _log.exception("database_not_backed_up")
                pause = _RETRY_SECONDS

    def _pause(self) -> float:
        try:
            return max(0.0, self._backups.seconds_until_due())
        except OSError:
            return 0.0  # Making one will say what is wrong.


def _time_of(path: Path) -> datetime:
    match = _NAME.fullmatch(path.name)
    assert match is not None  # noqa: S101 - only such paths are listed.
    return datetime.strptime(match[1], _FORM).replace(tzinfo=UTC)
