"""Whether files are what their manifest says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from imagedex.core.errors import CorruptIndex
from imagedex.segments.durable import storage_errors
from imagedex.segments.records import FileEntry

_BYTES_AT_ONCE = 4 * 2**20


def go_on() -> None:
    """Do nothing: for work that nobody interrupts."""


def require_intact(
    index_prefix: Path, entry: FileEntry, *, checkpoint: Callable[[], None] = go_on
) -> Path:
    """Return the path of a file after comparing its size and its SHA-256.

    Raises CorruptIndex, naming the file, when it is missing or differs; StorageError when it
    cannot be read; and what ``checkpoint`` raises, which is called every few MB.
    """
    path = require_size(index_prefix, entry)
    sha256 = _sha256_of(path, checkpoint)
    if sha256 != entry.sha256:
        raise _corrupt(path, f"its SHA-256 is {sha256}, expected {entry.sha256}")
    return path


def described(path: Path, name: str) -> FileEntry:
    """Return what a manifest says of a file as it is now, under another name.

    Raises CorruptIndex when it is missing, StorageError when it cannot be read.
    """
    sha256 = _sha256_of(path, go_on)
    with storage_errors("read", path):
        return FileEntry(name=name, bytes=path.stat().st_size, sha256=sha256)


def _sha256_of(path: Path, checkpoint: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with storage_errors("read", path):
        try:
            with open(path, "rb", buffering=0) as file:
                buffer = memoryview(bytearray(_BYTES_AT_ONCE))
                while size := file.readinto(buffer):
                    checkpoint()
                    digest.update(buffer[:size])
        except FileNotFoundError as error:
            raise _corrupt(path, "it is missing") from error
    return digest.hexdigest()


def is_intact(index_prefix: Path, entry: FileEntry) -> bool:
    """Say whether a file is there and what it should be. Raises StorageError."""
    try:
        require_intact(index_prefix, entry)
    except CorruptIndex:
        return False
    return True


def require_size(index_prefix: Path, entry: FileEntry) -> Path:
    """Return the path of a file after comparing its size alone; raises as ``require_intact``."""
    path = index_prefix / entry.name
    with storage_errors("read", path):
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise _corrupt(path, "it is missing") from error
    if size != entry.bytes:
        raise _corrupt(path, f"it has {size} bytes, expected {entry.bytes}")
    return path


def _corrupt(path: Path, reason: str) -> CorruptIndex:
    return CorruptIndex(
        f"The file {str(path)!r} is not what its manifest says: {reason}; restore it from a "
        "copy of the index, or index again under another prefix."
    )
