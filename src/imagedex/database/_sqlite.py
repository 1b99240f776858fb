"""A database in one SQLite file, for the processes of one machine.

SQLite has one writer at a time. It lets waiting writers poll and starves some, so that those of
this process stand in line before they come here; those of other processes wait in SQLite, up to
``BUSY_TIMEOUT_SECONDS``. In WAL mode readers wait for nobody (https://www.sqlite.org/wal.html). A
commit survives power cuts (``synchronous=FULL``).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL

from imagedex.core.errors import SettingsError, StorageError
from imagedex.core.times import utc_now
from imagedex.database._sqlite_backup import back_up
from imagedex.database._sqlite_faults import translated

BUSY_TIMEOUT_SECONDS = 30.0  # The largest transaction, a plan of a million images, takes less.
_WAL_KEPT_BYTES = 64 * 1024 * 1024  # A larger log is cut down again after a checkpoint.
_READERS = 8  # Connections that stay open; more are opened and closed as needed.


class SqliteAdapter:
    """The connections to one SQLite file, which is made with mode 0600 when there is none."""

    is_shared = False

    def __init__(self, url: URL) -> None:
        """Open nothing yet. Raises SettingsError for a URL that is not that of a file."""
        self._path = _path_of(url)
        # Only one writes at a time, so one connection is enough for all writers.
        self._writing = _engine(self._path, begin="BEGIN IMMEDIATE", pool_size=1, max_overflow=0)
        self._reading = _engine(self._path, begin="BEGIN", pool_size=_READERS, max_overflow=-1)
        self._alone = _engine(self._path, begin=None, pool_size=1, max_overflow=-1)

    @property
    def where(self) -> str:
        """The file."""
        return str(self._path)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Begin a transaction that excludes every other writer from its beginning."""
        with translated(self._path), self._writing.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read one consistent state, that of the first statement."""
        with translated(self._path), self._reading.begin() as connection:
            yield connection

    @contextmanager
    def lone(self) -> Iterator[Connection]:
        """Let each statement be a transaction of its own."""
        with translated(self._path), self._alone.connect() as connection:
            yield connection

    def now(self, connection: Connection) -> float:  # noqa: ARG002 - others ask the database.
        """Return the clock of the machine, which all processes on the file share."""
        return time.time()

    def require_usable(self, connection: Connection) -> None:
        """Accept it: what cannot be used is found out when it is opened."""

    def is_missing(self) -> bool:
        """Say whether there is no file, or an empty one."""
        return not self._path.exists() or self._path.stat().st_size == 0

    def damage(self, connection: Connection) -> str | None:
        """Read all of the file, and return what is wrong."""
        told = connection.execute(text("PRAGMA quick_check(3)")).scalars().all()
        return None if told == ["ok"] else "; ".join(str(row) for row in told)

    def back_up(self, target: Path) -> None:
        """Copy one consistent state into a file."""
        back_up(self._path, target, timeout_seconds=BUSY_TIMEOUT_SECONDS)

    def move_aside(self) -> str:
        """Give the file and its side files another name; return that of the database."""
        path = self._path
        kept = path.with_name(f"{path.name}.damaged-{utc_now():%Y%m%dT%H%M%SZ}")
        try:
            # The log first: SQLite would play it into the new database of the old name.
            for suffix in ("-wal", "-shm", ""):
                side = path.with_name(path.name + suffix)
                if side.exists():
                    side.rename(kept.with_name(kept.name + suffix))
        except OSError as error:
            raise StorageError(
                f"The damaged database {str(path)!r} could not be moved to {str(kept)!r}: "
                f"{error.strerror}; check its directory and try again."
            ) from error
        return str(kept)

    def close(self) -> None:
        """Close the connections that nobody uses; the last one to go empties the log file."""
        for engine in (self._reading, self._alone, self._writing):
            engine.dispose()


def _path_of(url: URL) -> Path:
    if url.database in (None, "", ":memory:") or url.query:
        raise SettingsError(
            "The database must be a file without options, since several connections share it; "
            "expected for example sqlite:////var/lib/imagedex.db."
        )
    return Path(str(url.database)).absolute()


def _create_private(path: Path) -> None:
    """Make the file with mode 0600 when it is not there; SQLite's side files take that mode."""
    if path.exists():
        return
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StorageError(
            f"The database {str(path)!r} cannot be created: {error.strerror}; "
            "check that its directory exists and may be written."
        ) from error


def _engine(path: Path, *, begin: str | None, pool_size: int, max_overflow: int) -> Engine:
    """Return connections whose transactions begin so; without, each statement is one."""

    def connect() -> sqlite3.Connection:
        _create_private(path)
        connection = sqlite3.connect(
            path,
            timeout=BUSY_TIMEOUT_SECONDS,
            # BEGIN is sent below: the driver's own would be deferred, and a deferred transaction
            # that turns to writing fails at once when another has written meanwhile.
            isolation_level=None,
            check_same_thread=False,  # The pool hands it to one thread at a time.
        )
        try:
            prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def prepare(connection: sqlite3.Connection) -> None:
        mode = _enter_wal(connection)
        if mode != "wal":
            raise SettingsError(
                f"The database {str(path)!r} lies where SQLite cannot keep a write-ahead log "
                f"(journal mode {mode!r}); put it on a local disk."
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT_BYTES}")
        if begin == "BEGIN":
            connection.execute("PRAGMA query_only = ON")

    def send_begin(connection: Connection) -> None:
        # Straight to the driver: through SQLAlchemy it costs a third of a short read.
        driver: Any = connection.connection.driver_connection
        driver.execute(begin)

    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        creator=connect,
        pool_size=pool_size,
        max_overflow=max_overflow,
    )
    if begin is not None:
        event.listen(engine, "begin", send_begin)
    return engine


def _enter_wal(connection: sqlite3.Connection) -> str:
    """Turn to the write-ahead log, and return the mode that the database is in then.

    When several processes do this to a new file at once, SQLite does not let them wait for
    each other as it does elsewhere: one is told that the database is busy. So it waits here.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
