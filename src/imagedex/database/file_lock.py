"""One process per file."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import weakref
from pathlib import Path
from typing import Any

from imagedex.core.errors import HomeInUse, SettingsError
from imagedex.core.times import iso_z, utc_now


class FileLock:
    """An ``flock`` on a file, whose text names the holder.

    The operating system drops it when the process dies, however that happens, so it is never
    stale. The file stays: deleting it would let two processes lock two files of the same name.
    """

    def __init__(self, path: Path, *, what: str, remedy: str) -> None:
        """Take the file; ``what`` is in use when it is locked, and ``remedy`` says what to do."""
        self._path = path
        self._what = what
        self._remedy = remedy
        self._descriptor: int | None = None

    def require_free_here(self) -> None:
        """Raise HomeInUse when this object has locked it already."""
        if self._descriptor is not None:
            raise HomeInUse(f"{self._what} is already locked by this object.")

    def acquire(self) -> None:
        """Lock the file, which is made when it is not there.

        Raises HomeInUse, naming the holder, when somebody has it; OSError when it cannot be opened,
        and SettingsError when its file system has no locks.
        """
        self.require_free_here()
        descriptor = os.open(
            self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _describe_holder(descriptor)
            os.close(descriptor)
            raise HomeInUse(f"{self._what} is in use by {holder}; {self._remedy}.") from error
        except OSError as error:
            os.close(descriptor)
            raise SettingsError(
                f"{self._what} cannot be locked: {error.strerror}; put it on a local disk."
            ) from error
        self._descriptor = descriptor
        _held.add(self)
        _write_holder(descriptor)

    def release(self) -> None:
        """Give the lock back; without it this does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self)


_held: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _release_in_child() -> None:
    """Let a forked child keep nothing locked after its parent died.

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
