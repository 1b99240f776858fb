"""One publisher at a time, over all threads and processes that share the storage."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imagedex.core.errors import StorageError
from imagedex.segments import layout
from imagedex.segments.durable import storage_errors

_POLL_SECONDS = 0.02


def _no_term() -> int:
    return 0


def publish_lock(
    index_prefix: Path, *, term: Callable[[], int] = _no_term, wait_seconds: float = 30.0
) -> PublishLock:
    """Return the lock of an index, whose directory must be there when it is taken.

    It keeps those apart who publish in one term. A holder that is frozen keeps it for as long as
    it is; whoever takes over has a higher term, and so another lock. That nothing of the former
    owner counts any more is held by the line of generations (see ``succession``), not by a lock.
    """
    return PublishLock(lambda: index_prefix / layout.lock_name(term()), wait_seconds=wait_seconds)


def forget_locks(index_prefix: Path, *, before: int) -> None:
    """Delete the locks of former terms, which order nothing any more. Raises StorageError."""
    with storage_errors("tidy up", index_prefix):
        for path in index_prefix.glob(f"{layout.LOCK}-*"):
            term = layout.term_of_lock(path.name)
            if term is not None and term < before:
                path.unlink(missing_ok=True)


class PublishLock:
    """An exclusive ``flock(2)`` on a file that is not deleted while it is in use.

    The kernel gives it back when its holder dies, however it dies. Linux maps it onto
    byte-range locks over NFS, where it excludes processes but not threads; so there is a
    thread lock in front of it.
    """

    def __init__(self, path_now: Callable[[], Path], *, wait_seconds: float) -> None:
        """Take what says which file it is, each time that the lock is taken."""
        self._path_now = path_now
        self._wait_seconds = wait_seconds
        self._threads = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock during the block; raises StorageError when it stays taken too long."""
        deadline = time.monotonic() + self._wait_seconds
        path = self._path_now()
        if not self._threads.acquire(timeout=self._wait_seconds):
            raise self._taken(path)
        try:
            with storage_errors("lock", path):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                self._wait_for(descriptor, path, deadline)
                yield
            finally:
                os.close(descriptor)  # This gives the lock back.
        finally:
            self._threads.release()

    def _wait_for(self, descriptor: int, path: Path, deadline: float) -> None:
        # Polling bounds the wait: a stopped process can hold the lock for ever.
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    with storage_errors("lock", path):
                        raise
            if time.monotonic() > deadline:
                raise self._taken(path)
            time.sleep(_POLL_SECONDS)

    def _taken(self, path: Path) -> StorageError:
        return StorageError(
            f"Another process or thread has held {str(path)!r} for "
            f"{self._wait_seconds:g} s; let it finish, or end it if it hangs, and try again."
        )
