"""Transactions on the database, of whatever kind it is.

There is one writer at a time. Writers of this process stand in line in the order of their coming,
and behind those of other processes in the database. Readers never wait: each sees the state of
its beginning.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from imagedex.core.errors import SettingsError
from imagedex.database._sqlite import SqliteAdapter
from imagedex.database.interfaces import DatabaseAdapter
from imagedex.database.queue import WriteQueue
from imagedex.database.schema import upgrade


class Snapshot:
    """One unchanging state of the database, for reading. For one thread."""

    def __init__(self, connection: Connection, clock: Callable[[Connection], float]) -> None:
        self.connection = connection  # SQLAlchemy's; for the adapters only.
        self._clock = clock

    def now(self) -> float:
        """Return the moment of the call: seconds since the epoch, by the database's clock.

        All processes on one database share it, whatever the clocks of their machines say.
        """
        return self._clock(self.connection)


class Transaction(Snapshot):
    """A write transaction: all of it becomes durable, or nothing. For one thread.

    It excludes every other writer, of this process and of others, from its beginning: what
    it reads stays true until it ends.
    """

    def __init__(self, connection: Connection, clock: Callable[[Connection], float]) -> None:
        super().__init__(connection, clock)
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

    A commit that returned survives ``kill -9`` and power cuts. Errors: SettingsError for a URL
    that cannot be used, Unavailable when another process keeps the write lock too long or a server
    cannot be reached, StorageError for a full disk, a lost share, missing permission or a damaged
    file; after an error nothing of the transaction is stored. No error says a password.
    """

    def __init__(self, url: str) -> None:
        self._adapter = _adapter_of(url)
        self._queue = WriteQueue()
        self._check: Callable[[Transaction], None] | None = None

    def guarded(self, check: Callable[[Transaction], None]) -> Self:
        """Return the same database, but that each transaction begins with a check.

        What ``check`` raises leaves the block's beginning, and nothing of it is stored. So a
        process that has lost a right can record nothing that it began while it had it.
        """
        guarded = copy.copy(self)
        guarded._check = check  # noqa: SLF001 - It is one of its own kind.
        return guarded

    @property
    def where(self) -> str:
        """Where it is, for messages: without user or password."""
        return self._adapter.where

    @property
    def is_shared(self) -> bool:
        """Whether processes on other machines may use it at the same time."""
        return self._adapter.is_shared

    def upgrade(self) -> None:
        """Create or migrate all tables; all of it happens, or nothing.

        Without need it changes nothing; several processes may do it at once. Raises SettingsError
        for a database that a newer version has migrated, and for one that cannot hold all that is
        written to it.
        """
        with self.transaction() as transaction:
            self._adapter.require_usable(transaction.connection)
            upgrade(transaction.connection, self.where)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Begin to write; commits at the end of the block, rolls back when it raises.

        A thread that is inside one may not begin another (RuntimeError): it would wait
        for itself.
        """
        with self._queue.turn():
            with self._adapter.write() as connection:
                transaction = Transaction(connection, self._adapter.now)
                if self._check is not None:
                    self._check(transaction)
                yield transaction
            transaction.committed()

    @contextmanager
    def read(self) -> Iterator[Snapshot]:
        """Read one consistent state, that of the first statement. Writing fails."""
        with self._adapter.read() as connection:
            yield Snapshot(connection, self._adapter.now)

    @contextmanager
    def lone(self) -> Iterator[Snapshot]:
        """Let each statement be a transaction of its own, read or write, out of the line.

        It waits for no other writer but those of the same rows (in SQLite, for the one that is
        writing), so that a long transaction does not keep a sign of life from being told.
        """
        with self._adapter.lone() as connection:
            yield Snapshot(connection, self._adapter.now)

    def is_missing(self) -> bool:
        """Say whether there is nothing at all where the database should be."""
        return self._adapter.is_missing()

    def damage(self, snapshot: Snapshot) -> str | None:
        """Return what is broken in it, if that can be found out."""
        return self._adapter.damage(snapshot.connection)

    def back_up(self, target: Path) -> None:
        """Copy one consistent state into a file of mode 0600, while it is in use.

        The file is checked, and there whole and durably or not at all; one of that name is
        replaced. Nobody waits for it. Raises StorageError when the disk is full or the database is
        damaged, Unavailable when it stays locked, Conflict for a shared database, of which its own
        tools make copies.
        """
        self._adapter.back_up(target)

    def move_aside(self) -> str:
        """Give a damaged database another name, so that a new one can be made; return the name.

        Call ``close`` before. Raises StorageError when its directory cannot be written, Conflict
        for a shared database.
        """
        return self._adapter.move_aside()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        self._adapter.close()


def _adapter_of(url: str) -> DatabaseAdapter:
    # URLs are not quoted in messages, since they hold passwords.
    parsed = _parsed(url)
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        return SqliteAdapter(parsed)
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        if url.count("@") > 1:
            # What comes after the first one would be taken for host, database or options.
            raise SettingsError(
                "The database URL has more than one '@'; write one in a user or password as %40."
            )
        return _postgresql(parsed)
    raise SettingsError(
        f"The database {parsed.drivername!r} is not supported; use an SQLite file, for example "
        "sqlite:////var/lib/imagedex.db, or a PostgreSQL server, for example "
        "postgresql://user:password@host/imagedex."
    )


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # Not chained: the error may quote a part of the URL, which may be one of a password.
        raise SettingsError(
            "The database URL cannot be read; expected for example sqlite:////var/lib/imagedex.db, "
            "or postgresql://user:password@host/imagedex, with %XX for what is no letter or digit "
            "in a password."
        ) from None


def _postgresql(url: URL) -> DatabaseAdapter:
    try:
        # Here, since its driver is there for those only who use it.
        from imagedex.database._postgresql import PostgresqlAdapter
    except ImportError as error:
        raise SettingsError(
            "The database is PostgreSQL's, for which a driver is not installed; install it with: "
            "pip install 'imagedex[postgresql]'"
        ) from error
    return PostgresqlAdapter(url)
