"""Files that are on the disk, whole, before anybody can see their names.

A file is written under a temporary name and flushed with ``fsync``; only then does it get its
name, and the name is durable once its directory was flushed too. (Pillai et al., "All File
Systems Are Not Created Equal", OSDI 2014, shows what goes wrong without each of these steps.)
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from imagedex.core.errors import StorageError
from imagedex.segments.layout import TEMPORARY_SUFFIX

_REMEDIES = {
    errno.ENOSPC: "free some space there and try again",
    errno.EDQUOT: "raise the quota or free some space and try again",
    errno.EFBIG: "raise the file size limit (ulimit -f) and try again",
    errno.EACCES: "give the server's user the right to write there",
    errno.EPERM: "give the server's user the right to write there",
    errno.EROFS: "mount it writable and try again",
    errno.ENOENT: "check that the storage is mounted and try again",
    errno.ESTALE: "check that the share is mounted and try again",
    errno.EIO: "check the disk or share, then try again",
}

WriteContent = Callable[["HashingFile"], object]


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that is complete and flushed."""

    bytes: int
    sha256: str  # Hexadecimal.


class HashingFile:
    """A writable binary stream that computes the SHA-256 of what passes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.closed = False  # Arrow asks for it.

    def write(self, data: bytes | memoryview) -> int:
        """Write all of ``data`` and return its length in bytes."""
        view = memoryview(data)
        self._file.write(view)
        self._digest.update(view)
        return view.nbytes

    def flush(self) -> None:
        """Do nothing: the file is flushed once, when it is complete."""

    def digest(self) -> str:
        """Return the SHA-256 of all that was written so far."""
        return self._digest.hexdigest()


@contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an operating system error inside the block into a StorageError with a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the storage and try again")
        reason = error.strerror or str(error)
        raise StorageError(f"Could not {action} {str(path)!r}: {reason}; {remedy}.") from error


@contextmanager
def temporary_file(
    path: Path, write: WriteContent, *, mode: int = 0o666
) -> Iterator[tuple[Path, WrittenFile]]:
    """Hold a complete, flushed file under a temporary name beside ``path``.

    The block gives it its name; whatever happens, the temporary name is gone afterwards. It has
    ``mode``, less what the umask takes away, from its first moment.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            hashing = HashingFile(file)
            write(hashing)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        yield temporary, WrittenFile(bytes=size, sha256=hashing.digest())
    finally:
        # The error that led here counts; a temporary file that stays is swept later.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def create_file(path: Path, write: WriteContent) -> WrittenFile:
    """Create an immutable file that is complete from its first moment under this name.

    Raises StorageError, also when the name is taken: an existing file is never touched. The
    name is durable after ``sync_directory``.
    """
    with storage_errors("write", path), temporary_file(path, write) as (temporary, written):
        try:
            # A link, unlike a rename, fails when the name is taken, on NFS too.
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            raise StorageError(
                f"Could not write {str(path)!r}: its file system has no hard links; put the "
                "index on one that has, such as ext4, XFS or NFS."
            ) from error
    return written


def replace_file(path: Path, write: WriteContent) -> WrittenFile:
    """Create or replace a file atomically and durably. Raises StorageError."""
    with storage_errors("write", path):
        with temporary_file(path, write) as (temporary, written):
            temporary.replace(path)
        sync_directory(path.parent)
    return written


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: Path) -> None:
    """Make a directory and its parents, durably, unless it is there. Raises StorageError."""
    with storage_errors("make the directory", path):
        missing = []
        directory = path
        while not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for directory in reversed(missing):
            # Another process may make it in the same moment.
            directory.mkdir(exist_ok=True)
            sync_directory(directory.parent)
