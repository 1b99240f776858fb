"""One server per home, and a home for its owner alone."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from imagedex.core.errors import HomeInUse, SettingsError
from imagedex.core.times import iso_z, utc_now


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

    It is an ``flock`` on the file ``LOCK``, whose text names the holder. The operating system
    drops it when the process dies, however that happens, so it is never stale. The file stays:
    deleting it would let two processes lock two files of the same name.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Make the home (mode 0700) when it is not there, and lock it.

        Raises HomeInUse, naming the holder, when somebody has it, and SettingsError when
        the home cannot be made or written, or is not ours (see prepare_home).
        """
        if self._descriptor is not None:
            raise HomeInUse(f"The home {str(self._home)!r} is already locked by this object.")
        prepare_home(self._home)
        try:
            descriptor = os.open(
                self._home / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise _unusable(self._home, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _describe_holder(descriptor)
            os.close(descriptor)
            raise HomeInUse(
                f"The home {str(self._home)!r} is in use by {holder}; "
                "talk to that server over its API (IMAGEDEX_URL), or stop it first."
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise SettingsError(
                f"The home {str(self._home)!r} cannot be locked: {error.strerror}; "
                "put it on a local disk."
            ) from error
        self._descriptor = descriptor
        _held.add(self)
        _write_holder(descriptor)

    def release(self) -> None:
        """Give the home back; without a lock this does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self)

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


_held: weakref.WeakSet[HomeLock] = weakref.WeakSet()


def _release_in_child() -> None:
    """Let a forked child not keep the home locked after its parent died.

    Closing the child's descriptor leaves the parent's lock as it is, see flock(2).
    """
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)


def _write_holder(descriptor: int) -> None:
    """Describe this process as the holder, if there is room for that."""
    text = json.dumps({"pid": os.getpid(), "since": iso_z(utc_now())})
    # The lock holds without it, and a full disk is to be found out about from a running server.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _describe_holder(descriptor: int) -> str:
    """Name the holder; it may be about to write the file, or have had no room for it."""
    try:
        holder: Any = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['pid']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
