"""Opening what somebody hostile may have put there, without being harmed by it."""

# Image paths are strings here, as scandir and the kernel give them.
# ruff: noqa: PTH114, PTH115, PTH116

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import Self

from imagedex.core.images import FailureReason, FileStamp
from imagedex.ingest.unusable import UnusableImage

# Non-blocking, so that a FIFO without a writer cannot hold us; no controlling terminal.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}

MAX_MTIME_NS = 2**63 - 1
"""In the year 2262: as late as a database's integer can tell. Some file systems tell later."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file or directory, open for reading. The holder closes it, best by ``with``."""

    descriptor: int
    real_path: str  # Where what is open lies, free of links.

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class OpenedFile(Opened):
    """A regular file, open for reading. The holder closes it, best by ``with``."""

    def stamp(self) -> FileStamp:
        """Return the open file's size and mtime as they are now."""
        return stamp_of(os.fstat(self.descriptor))


def stamp_of(status: os.stat_result) -> FileStamp:
    """Return the size and mtime of a status, in numbers that every database can hold."""
    mtime_ns = status.st_mtime_ns
    return FileStamp(status.st_size, min(MAX_MTIME_NS, mtime_ns))


def stamp_now(image_path: str) -> FileStamp | None:
    """Return the stamp that a file has now, None when nobody can say."""
    try:
        return stamp_of(os.stat(image_path))
    except (OSError, ValueError):
        return None


def open_regular_file(path: str) -> OpenedFile:
    """Open a regular file and find out where it really lies.

    Raises UnusableImage (vanished, unreadable, not_a_file).
    """
    try:
        if hasattr(os, "O_PATH"):
            return _open_by_handle(path)
        return _open_and_compare(path)
    except OSError as error:
        raise refusal(error) from error
    except ValueError as error:  # A NUL, or what no encoding of the file system can say.
        raise UnusableImage(FailureReason.VANISHED, "No file can have such a name.") from error


def open_directory(path: str, *, is_link_allowed: bool) -> Opened:
    """Open a directory for listing and find out where it really lies.

    Raises UnusableImage (vanished, unreadable; outside_roots when it is a link that is not
    allowed, or changes meanwhile).
    """
    try:
        flags = _DIRECTORY_FLAGS if is_link_allowed else _DIRECTORY_FLAGS | os.O_NOFOLLOW
        descriptor = os.open(path, flags)
        try:
            return Opened(descriptor, _real_path(descriptor, path))
        except (OSError, UnusableImage):
            os.close(descriptor)
            raise
    except OSError as error:
        if not is_link_allowed and os.path.islink(path):
            raise UnusableImage(
                FailureReason.OUTSIDE_ROOTS,
                "A link took the directory's place; what it leads to is scanned where it lies.",
            ) from error
        raise refusal(error) from error


def look_through_link(path: str) -> tuple[str, os.stat_result]:
    """Return where a link ends, and the status of what lies there.

    Both tell of one and the same file, however often links change. It is not opened. Raises
    OSError.
    """
    if not hasattr(os, "O_PATH"):
        real_path = os.path.realpath(path, strict=True)
        return real_path, os.lstat(real_path)
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return os.readlink(f"/proc/self/fd/{handle}"), os.fstat(handle)
    finally:
        os.close(handle)


def refusal(error: OSError) -> UnusableImage:
    """Return what an operating system's refusal means for an image."""
    if error.errno in _ABSENT:
        return UnusableImage(FailureReason.VANISHED, "There is no such file any more.")
    if error.errno == errno.ENXIO:  # Opening a socket.
        return UnusableImage(FailureReason.NOT_A_FILE, "The path names a socket.")
    code = errno.errorcode.get(error.errno or 0, "unknown error")
    return UnusableImage(
        FailureReason.UNREADABLE,
        f"The operating system refuses to read it: {error.strerror or error} ({code}).",
    )


def _open_by_handle(path: str) -> OpenedFile:
    """Linux: look at the file through a handle that opens nothing, then open that very file.

    So a device is never opened, which alone can do harm (a watchdog, a tape), and no change
    of a link can slip in between. Source: open(2), O_PATH.
    """
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(handle))
        alias = f"/proc/self/fd/{handle}"
        descriptor = os.open(alias, _READ_FLAGS)
        try:
            return OpenedFile(descriptor, os.readlink(alias))
        except OSError:
            os.close(descriptor)
            raise
    finally:
        os.close(handle)


def _open_and_compare(path: str) -> OpenedFile:
    """Elsewhere: open, then look whether the path without its links names the same file."""
    _require_regular(os.stat(path))
    descriptor = os.open(path, _READ_FLAGS)
    try:
        _require_regular(os.fstat(descriptor))
        real_path = _real_path(descriptor, path)
    except (OSError, UnusableImage):
        os.close(descriptor)
        raise
    return OpenedFile(descriptor, real_path)


def _real_path(descriptor: int, path: str) -> str:
    """Return where an open file or directory lies. Raises OSError, UnusableImage."""
    if hasattr(os, "O_PATH"):  # Linux: the kernel knows.
        return os.readlink(f"/proc/self/fd/{descriptor}")
    real_path = os.path.realpath(path, strict=True)
    if not os.path.samestat(os.lstat(real_path), os.fstat(descriptor)):
        raise UnusableImage(
            FailureReason.OUTSIDE_ROOTS, "A link on its path changed while it was opened."
        )
    return real_path


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
        raise UnusableImage(FailureReason.NOT_A_FILE, f"The path names {kind}.")
