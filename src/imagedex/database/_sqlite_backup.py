"""Copies of a file in use, by SQLite's online backup API (https://www.sqlite.org/backup.html)."""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from imagedex.core.errors import StorageError
from imagedex.database._sqlite_faults import translated


def back_up(source: Path, target: Path, *, timeout_seconds: float) -> None:
    """Copy one consistent state of a database into a file of mode 0600, while it is in use.

    The file is checked, and there whole and durably or not at all; one of that name is replaced.
    Nobody waits for it. Raises StorageError when the disk is full or the database is damaged,
    Unavailable when it stays locked.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        _copy(source, temporary, timeout_seconds)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(
            f"The database could not be backed up to {str(target)!r}: {error.strerror}; check "
            "that its directory may be written and has room."
        ) from error
    finally:
        # The error that led here counts; what stays is deleted with the next backup.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _copy(source: Path, target: Path, timeout_seconds: float) -> None:
    with translated(target), closing(sqlite3.connect(target)) as copy:
        # A file of its own that nobody else opens; the caller flushes it once.
        copy.execute("PRAGMA synchronous = OFF")
        with (
            translated(source),
            closing(
                sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True, timeout=timeout_seconds)
            ) as original,
        ):
            # All in one step: readers of a write-ahead log hold up nobody, and steps would begin
            # anew with each change of another connection.
            original.backup(copy, pages=-1)
        # Without a log beside it, the one file is all that there is to keep.
        copy.execute("PRAGMA journal_mode = DELETE")
        told = [row[0] for row in copy.execute("PRAGMA quick_check(3)")]
    if told != ["ok"]:
        raise StorageError(
            f"The database {str(source)!r} is damaged ({'; '.join(told)}), so it was not backed "
            "up; see imagedex doctor."
        )
