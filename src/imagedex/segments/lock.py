"""One publisher at a time, over all threads and processes that share the storage."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagedex.core.errors import StorageError
from imagedex.segments import layout
from imagedex.segments.durable import storage_errors

_POLL_SECONDS = 0.02


def publish_lock(index_prefix: Path, *, wait_seconds: float = 30.0) -> PublishLock:
    """Return the lock of an index, whose directory must be there when it is taken."""
    return PublishLock(index_prefix / layout.LOCK, wait_seconds=wait_seconds)


class PublishLock:
    """An exclusive ``flock(2)`` on a file that is never deleted.

    The kernel gives it back when its holder dies, however it dies. Linux maps it onto
    byte-range locks over NFS, where it excludes processes but not threads; so there is a
    thread lock in front of it.
    """

    def __init__(self, path: Path, *, wait_seconds: float) -> None:
        self._path = path
        self._wait_seconds = wait_seconds
        self._threads = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock during the block; raises StorageError when it stays taken too long."""
        deadline = time.monotonic() + self._wait_seconds
        if not self._threads.acquire(timeout=self._wait_seconds):
            raise self._taken()
        try:
            with storage_errors("lock", self._path):
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._wait_for(descriptor, deadline)
                yield
            finally:
                os.close(descriptor)  # This gives the lock back.
        finally:
            self._threads.release()

    def _wait_for(self, descriptor: int, deadline: float) -> None:
        # Polling bounds the wait: a stopped process can hold the lock for ever.
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    with storage_errors("lock", self._path):
                        raise
            if time.monotonic() > deadline:
                raise self._taken()
            time.sleep(_POLL_SECONDS)

    def _taken(self) -> StorageError:
        return StorageError(
            f"Another process or thread has held {str(self._path)!r} for "
            f"{self._wait_seconds:g} s; let it finish, or end it if it hangs, and try again."
        )
