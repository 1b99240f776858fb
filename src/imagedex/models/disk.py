"""Files that are on the disk, whole, before they count."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagedex.core.errors import StorageError

_READ_BYTES = 1 << 20

_REMEDIES = {
    errno.ENOSPC: "free some space there and try again",
    errno.EDQUOT: "raise the quota or free some space and try again",
    errno.EFBIG: "raise the file size limit (ulimit -f) and try again",
    errno.EACCES: "give this user the right to write there",
    errno.EPERM: "give this user the right to write there",
    errno.EROFS: "mount it writable and try again",
}


@dataclass(frozen=True, slots=True)
class FileDigests:
    """What a file holds."""

    bytes: int
    sha256: str  # Hexadecimal.
    git_blob: str  # The SHA-1 by which git names this content, hexadecimal.


def file_digests(path: Path) -> FileDigests:
    """Read a file once and return its digests. Raises StorageError."""
    with storage_errors("read", path), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        sha256 = hashlib.sha256()
        # The name that git gives to content, see `git help hash-object`; nothing relies on its
        # being hard to forge, since large files come with their SHA-256.
        git_blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        while block := file.read(_READ_BYTES):
            sha256.update(block)
            git_blob.update(block)
    return FileDigests(size, sha256.hexdigest(), git_blob.hexdigest())


@contextmanager
def storage_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an operating system error inside the block into a StorageError with a remedy."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the disk and try again")
        reason = error.strerror or str(error)
        raise StorageError(f"Could not {action} {str(path)!r}: {reason}; {remedy}.") from error


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, or a flushed copy of it where links cannot be.

    Links are followed: what is linked is the file itself. Raises StorageError.
    """
    original = source.resolve()
    with storage_errors("write", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(original, target)
        except OSError as error:
            # Another file system, one without links, or another user's file (hardlinks(7),
            # protected_hardlinks): a copy does as well.
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
            copy_file(original, target)


def copy_file(source: Path, target: Path) -> None:
    """Copy the content of a file and flush it. Raises StorageError."""
    with storage_errors("write", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        sync(target)


def sync_tree(directory: Path) -> None:
    """Make a directory with all that is below it durable. Raises StorageError."""
    with storage_errors("write", directory):
        for folder, _, names in os.walk(directory):
            for name in names:
                sync(Path(folder) / name)
            sync(Path(folder))


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a directory, durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(directory: Path, needed_bytes: int) -> None:
    """Raise StorageError when a file system has no room for so many bytes more."""
    with storage_errors("look at", directory):
        free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise StorageError(
            f"{needed_bytes:,} bytes are still to come, but the file system of {str(directory)!r} "
            f"has {free:,} bytes left; free some space, or set IMAGEDEX_HOME to a larger disk."
        )
