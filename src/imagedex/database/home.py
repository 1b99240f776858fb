"""One server per home, and a home for its owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from imagedex.core.errors import SettingsError
from imagedex.database.file_lock import FileLock


def prepare_home(home: Path) -> None:
    """Make the home directory when it is not there, and close it to other users (mode 0700).

    Raises SettingsError, also when the directory is another user's or one that all users share.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = home.stat()
    except OSError as error:
        raise _unusable(home, error) from error
    if status.st_uid != os.geteuid():
        raise SettingsError(
            f"The home {str(home)!r} belongs to user {status.st_uid}, who could read and change "
            f"all that is in it, and this process runs as user {os.geteuid()}; set IMAGEDEX_HOME "
            "to a directory of its own, or give it this one by chown."
        )
    if status.st_mode & 0o077:
        _close_to_others(home, status)


def _close_to_others(home: Path, status: os.stat_result) -> None:
    # Closing /tmp or / would take the machine from everybody else.
    if status.st_mode & stat.S_ISVTX or home.resolve() == Path("/"):
        raise SettingsError(
            f"The home {str(home)!r} is a directory that all users share; set IMAGEDEX_HOME to a "
            "directory below it."
        )
    try:
        home.chmod(0o700)
    except OSError as error:
        raise SettingsError(
            f"The home {str(home)!r} is open to other users (mode "
            f"{stat.S_IMODE(status.st_mode):04o}) and cannot be closed to them: {error.strerror}; "
            "set IMAGEDEX_HOME to a directory on a local disk."
        ) from error


class HomeLock:
    """The sole right to run on a home directory, held until ``release`` or the process's death.

    It is a ``FileLock`` on the file ``LOCK``.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = FileLock(
            home / "LOCK",
            what=f"The home {str(home)!r}",
            remedy="talk to that server over its API (IMAGEDEX_URL), or stop it first",
        )

    def acquire(self) -> None:
        """Make the home (mode 0700) when it is not there, and lock it.

        Raises HomeInUse, naming the holder, when somebody has it, and SettingsError when
        the home cannot be made or written, or is not ours (see prepare_home).
        """
        self._lock.require_free_here()
        prepare_home(self._home)
        try:
            self._lock.acquire()
        except OSError as error:
            raise _unusable(self._home, error) from error

    def release(self) -> None:
        """Give the home back; without a lock this does nothing."""
        self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _unusable(home: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"The home {str(home)!r} cannot be used: {error.strerror}; "
        "set IMAGEDEX_HOME to a directory that may be written."
    )
