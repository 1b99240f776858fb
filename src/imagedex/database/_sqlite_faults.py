"""What SQLite's errors mean to an operator."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from imagedex.core.errors import ImagedexError, StorageError, Unavailable

# Primary result codes, https://www.sqlite.org/rescode.html.
_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_IOERR: "reading or writing failed; check the disk, its free space and mount",
    sqlite3.SQLITE_READONLY: "it may not be written; check owner, mode and mount",
    sqlite3.SQLITE_PERM: "it may not be opened; check owner and mode",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that it is a file and may be written",
    sqlite3.SQLITE_CORRUPT: "it is damaged; stop the server and restore it from a backup",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database; check the database URL",
    sqlite3.SQLITE_NOLFS: "the file system does not take a file of this size; move it",
}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise StorageError or Unavailable for what the file system or other processes did.

    Broken rules of the tables and wrong statements are defects of the program; those pass.
    """
    try:
        yield
    except DBAPIError as error:
        _raise_fault(error.orig, error, path)
        raise
    except sqlite3.Error as error:  # SQLAlchemy does not wrap all of them.
        _raise_fault(error, error, path)
        raise


def _raise_fault(original: BaseException | None, raised: Exception, path: Path) -> None:
    fault = _fault_of(original, path)
    if fault is not None:
        raise fault from raised


def _fault_of(error: BaseException | None, path: Path) -> ImagedexError | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return None
    primary = code & 0xFF  # The higher bits only refine it.
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(
            f"The database {str(path)!r} is busy: another process kept it locked too long; "
            "try again, and look for a second server or an open database shell."
        )
    remedy = _REMEDIES.get(primary)
    if remedy is None:
        return None
    return StorageError(f"The database {str(path)!r} failed ({error}): {remedy}.")
