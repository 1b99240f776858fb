"""Transactions on the database.

SQLite has one writer at a time. Writers of this process stand in line for it in the order of
their coming, because SQLite itself lets waiting writers poll and starves some; writers of other
processes wait in SQLite, up to ``BUSY_TIMEOUT_SECONDS``. Readers never wait: in WAL mode
each sees the state of its beginning (https://www.sqlite.org/wal.html).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from imagedex.core.errors import SettingsError, StorageError
from imagedex.database.faults import translated
from imagedex.database.queue import WriteQueue
from imagedex.database.schema import upgrade

BUSY_TIMEOUT_SECONDS = 30.0  # The largest transaction, a plan of a million images, takes less.
_WAL_KEPT_BYTES = 64 * 1024 * 1024  # A larger log is cut down again after a checkpoint.
_READERS = 8  # Connections that stay open; more are opened and closed as needed.


class Snapshot:
    """One unchanging state of the database, for reading. For one thread."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection  # SQLAlchemy's; for the adapters only.


class Transaction(Snapshot):
    """A write transaction: all of it becomes durable, or nothing. For one thread.

    It excludes every other writer, of this process and of others, from its beginning: what
    it reads stays true until it ends.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._afterwards: list[Callable[[], object]] = []

    def after_commit(self, act: Callable[[], object]) -> None:
        """Do something once all of it is durable, and not at all when it is rolled back."""
        self._afterwards.append(act)

    def committed(self) -> None:
        """Do what was put off until now."""
        for act in self._afterwards:
            act()


class Database:
    """The database behind a URL. Safe to use from several threads; give each its transactions.

    The file is made with mode 0600 when there is none. A commit that returned survives
    ``kill -9`` and power cuts (``synchronous=FULL``). Errors: SettingsError for a URL that
    cannot be used, Unavailable when another process keeps the write lock too long, StorageError
    for a full disk, a lost share, missing permission or a damaged file; after an error nothing
    of the transaction is stored.
    """

    def __init__(self, url: str) -> None:
        self._path = _sqlite_path(url)
        self._queue = WriteQueue()
        self._writing = _engine(self._path, writes=True)
        self._reading = _engine(self._path, writes=False)

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._path

    def upgrade(self) -> None:
        """Create or migrate all tables; all of it happens, or nothing.

        Without need it changes nothing; several processes may do it at once. Raises SettingsError
        for a database that a newer version has migrated.
        """
        with self.transaction() as transaction:
            upgrade(transaction.connection, self._path)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Begin to write; commits at the end of the block, rolls back when it raises.

        A thread that is inside one may not begin another (RuntimeError): it would wait
        for itself.
        """
        with self._queue.turn():
            with translated(self._path), self._writing.begin() as connection:
                transaction = Transaction(connection)
                yield transaction
            transaction.committed()

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """Read one consistent state, that of the first statement. Writing fails."""
        with translated(self._path), self._reading.begin() as connection:
            yield Snapshot(connection)

    def close(self) -> None:
        """Close the connections that nobody uses; the last one to go empties the log file."""
        self._reading.dispose()
        self._writing.dispose()


def _sqlite_path(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise SettingsError(
            "The database URL cannot be read; expected for example sqlite:////var/lib/imagedex.db."
        ) from error
    # The URL is not quoted in messages, since those of other databases hold passwords.
    if parsed.get_backend_name() != "sqlite" or parsed.get_driver_name() != "pysqlite":
        raise SettingsError(
            f"The database {parsed.drivername!r} is not supported; use an SQLite file, "
            "for example sqlite:////var/lib/imagedex.db."
        )
    if parsed.database in (None, "", ":memory:") or parsed.query:
        raise SettingsError(
            "The database must be a file without options, since several connections share it; "
            "expected for example sqlite:////var/lib/imagedex.db."
        )
    return Path(str(parsed.database)).absolute()


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


def _engine(path: Path, *, writes: bool) -> Engine:
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
        if not writes:
            connection.execute("PRAGMA query_only = ON")

    def begin(connection: Connection) -> None:
        # Straight to the driver: through SQLAlchemy it costs a third of a short read.
        driver: Any = connection.connection.driver_connection
        driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        creator=connect,
        # Only one writes at a time, so one connection is enough for all writers.
        pool_size=1 if writes else _READERS,
        max_overflow=0 if writes else -1,
    )
    event.listen(engine, "begin", begin)
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
