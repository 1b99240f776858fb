"""What the errors of a PostgreSQL server mean to an operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from imagedex.core.errors import ImagedexError, SettingsError, StorageError, Unavailable

# By the beginning of the code, https://www.postgresql.org/docs/current/errcodes-appendix.html.
# The longest beginning counts.
_FAULTS: dict[str, tuple[type[ImagedexError], str]] = {
    "08": (Unavailable, "the connection was lost; try again"),
    "57P": (Unavailable, "the server is stopping or starting; try again"),
    "53": (Unavailable, "the server has too little memory or too few connections left; try again"),
    "55P03": (
        Unavailable,
        "another process kept it locked too long; look for an open database shell, and try again",
    ),
    "57014": (Unavailable, "the server gave the statement up; try again"),
    "40": (Unavailable, "the server gave the transaction up; try again"),
    "25P0": (
        Unavailable,
        "the server gave up a transaction in which this process was silent too long; try again",
    ),
    "53100": (StorageError, "the server's disk is full; free some space there"),
    "58": (StorageError, "the server cannot read or write its files; check its disk and its log"),
    "XX001": (StorageError, "it is damaged; stop all servers and restore it with pg_restore"),
    "XX002": (StorageError, "it is damaged: an index of it; run REINDEX, or restore it"),
    "25006": (
        StorageError,
        "it may only be read; name the primary server in IMAGEDEX_DATABASE_URL",
    ),
    "28": (SettingsError, "it refuses the user; check user and password in IMAGEDEX_DATABASE_URL"),
    "3D000": (SettingsError, "there is no such database; create it, or correct the name"),
    "42501": (
        SettingsError,
        "the user may not do this there; make it the owner of the database",
    ),
}

# A refused connection has no code, only the server's words, in English where nobody changed
# lc_messages; those of another language are told all the same, as what may pass.
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "is not permitted to log in",
    "permission denied",
    "certificate",
    "server does not support SSL",
)
_MAX_TOLD_CHARACTERS = 500


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise Unavailable, StorageError or SettingsError for what server and network did.

    Broken rules of the tables and wrong statements are defects of the program; those pass.
    """
    try:
        yield
    except DBAPIError as error:
        _raise_fault(error.orig, error, where)
        raise
    except psycopg.Error as error:  # Of the driver, which some statements go to straight.
        _raise_fault(error, error, where)
        raise
    except NoConnectionFree as error:
        raise Unavailable(
            f"The database {where!r} is busy: all connections of this process to it are in use; "
            "try again."
        ) from error


def _raise_fault(original: BaseException | None, raised: Exception, where: str) -> None:
    fault = _fault_of(original, where)
    if fault is not None:
        raise fault from raised


def _fault_of(error: BaseException | None, where: str) -> ImagedexError | None:
    if not isinstance(error, psycopg.Error):
        return None
    code = error.sqlstate
    if code is None:
        return _lost(error, where) if isinstance(error, psycopg.OperationalError) else None
    for length in (5, 4, 3, 2):
        fault = _FAULTS.get(code[:length])
        if fault is not None:
            kind, remedy = fault
            return kind(f"The database {where!r} failed ({_words_of(error)}): {remedy}.")
    return None


def _lost(error: psycopg.Error, where: str) -> ImagedexError:
    """Tell of a connection that could not be made, or broke."""
    words = _words_of(error)
    if any(refusal in words for refusal in _REFUSALS):
        return SettingsError(
            f"The database {where!r} refuses the connection ({words}); check "
            "IMAGEDEX_DATABASE_URL, and that the server lets this user in from here."
        )
    return Unavailable(
        f"The database {where!r} cannot be reached ({words}); check that its server runs and that "
        "the network lets this machine through."
    )


def _words_of(error: psycopg.Error) -> str:
    """Return what was told, in one line. Neither server nor driver tells a password."""
    return " ".join(str(error).split())[:_MAX_TOLD_CHARACTERS]
