"""Whether files are what their manifest says."""

from __future__ import annotations

import hashlib
from pathlib import Path

from imagedex.core.errors import CorruptIndex
from imagedex.segments.durable import storage_errors
from imagedex.segments.records import FileEntry


def require_intact(index_prefix: Path, entry: FileEntry) -> Path:
    """Return the path of a file after comparing its size and its SHA-256.

    Raises CorruptIndex, naming the file, when it is missing or differs; StorageError when it
    cannot be read.
    """
    path = index_prefix / entry.name
    with storage_errors("read", path):
        try:
            size = path.stat().st_size
            if size != entry.bytes:
                raise _corrupt(path, f"it has {size} bytes, expected {entry.bytes}")
            with open(path, "rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise _corrupt(path, "it is missing") from error
    if sha256 != entry.sha256:
        raise _corrupt(path, f"its SHA-256 is {sha256}, expected {entry.sha256}")
    return path


def _corrupt(path: Path, reason: str) -> CorruptIndex:
    return CorruptIndex(
        f"The file {str(path)!r} is not what its manifest says: {reason}; restore it from a "
        "copy of the index, or index again under another prefix."
    )
