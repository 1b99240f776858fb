"""Digests of model files, without reading a gigabyte at each start."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.lock_file import LockFile

_READ_BYTES = 1 << 20
# What was read by this process, by path, size and time of the last write.
_known: dict[tuple[str, int, int], str] = {}
_known_lock = threading.Lock()


def file_sha256(path: Path, *, directory: Path, lock: LockFile | None) -> str:
    """Return the SHA-256 of ``path``, a file of the model in ``directory``, hexadecimal.

    It is that of the lock file where size and time of writing agree with it; otherwise the file
    is read, once in the life of this process. Raises ModelError. Safe to call from several
    threads.
    """
    try:
        state = path.stat()
        key = (os.fspath(path), state.st_size, state.st_mtime_ns)
        relative = path.relative_to(directory).as_posix()
        for file in lock.files if lock is not None else ():
            if file.path == relative and (file.bytes, file.mtime_ns) == key[1:]:
                return file.sha256
        # Held while reading, so that two who ask at once do not both read.
        with _known_lock:
            if key not in _known:
                _known[key] = _read_sha256(path)
            return _known[key]
    except OSError as error:
        raise ModelError(
            f"The model's file {str(path)!r} cannot be read: {error}; give this user the right "
            "to read it, or pull the model again."
        ) from error


def _read_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
