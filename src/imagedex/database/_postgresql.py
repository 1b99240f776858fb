"""A database on a PostgreSQL server, which controllers on several machines can share.

Writers stand in line for one advisory lock, which each takes as it begins: so a transaction
excludes every other writer, as in SQLite, and what it has read stays true until it ends. They are
READ COMMITTED, since a transaction of a higher level would take its snapshot before it has waited
for the lock, and then read what others have changed since. Readers are REPEATABLE READ and wait for
nobody. A commit survives what the server's ``synchronous_commit`` and ``fsync`` let it survive.

A controller that is frozen or cut off must not keep the lock: the server ends a write transaction
that says nothing for ``_SILENT_WRITER_SECONDS``, and connections whose other end has gone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.string import StrDumper
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError

from imagedex.core.errors import Conflict, SettingsError
from imagedex.database._postgresql_faults import translated

_WRITERS_LOCK = (7267345, 1)  # One number for all of Imagedex, one for this lock.
_LOCK_TIMEOUT_SECONDS = 30  # The largest transaction, a plan of a million images, takes less.
_SILENT_WRITER_SECONDS = 5
_SILENT_READER_SECONDS = 600  # It may read files between the rows that it reads.
_READERS = 8  # Connections that stay open; as many again are opened and closed as needed.
_TRUSTED_SECONDS = 1.0  # A connection that was used so lately is not asked whether it still is one.

# Of https://www.postgresql.org/docs/current/libpq-connect.html: how the connection is made safe,
# and to which of several servers. The others are ours, or would be secrets in the wrong place.
_OPTIONS = frozenset(
    (
        "channel_binding",
        "gssencmode",
        "host",
        "passfile",
        "port",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslrootcert",
        "target_session_attrs",
    )
)
_KEPT_ALIVE = {"keepalives_idle": 2, "keepalives_interval": 2, "keepalives_count": 3}
_GONE_MILLISECONDS = 8000
_NEVER = 2**31  # Times that a statement is run before it is prepared.

_EXPECTED = "expected for example postgresql://user:password@host/imagedex"


class PostgresqlAdapter:
    """The connections to one database of a PostgreSQL server."""

    is_shared = True

    def __init__(self, url: URL) -> None:
        """Open nothing yet. Raises SettingsError for a URL that cannot be used."""
        _require_usable(url)
        self._url = url.set(drivername="postgresql+psycopg")
        self._where = _where(url)
        # Those of this process come here one at a time.
        self._writing = self._engine(
            "READ COMMITTED", silent_seconds=_SILENT_WRITER_SECONDS, pool_size=1, more=0
        )
        self._reading = self._engine(
            "REPEATABLE READ",
            silent_seconds=_SILENT_READER_SECONDS,
            pool_size=_READERS,
            more=_READERS,
        )
        self._alone = self._engine(
            "AUTOCOMMIT", silent_seconds=_SILENT_WRITER_SECONDS, pool_size=1, more=_READERS
        )
        event.listen(self._writing, "begin", _stand_in_line)
        event.listen(self._reading, "connect", _only_read)

    @property
    def where(self) -> str:
        """Host, port and name."""
        return self._where

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Begin a transaction that excludes every other writer from its beginning."""
        with translated(self._where), self._writing.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read one consistent state, that of the first statement."""
        with translated(self._where), self._reading.begin() as connection:
            yield connection

    @contextmanager
    def lone(self) -> Iterator[Connection]:
        """Let each statement be a transaction of its own, without the lock of the writers."""
        with translated(self._where), self._alone.connect() as connection:
            yield connection

    def now(self, connection: Connection) -> float:
        """Ask the server for the moment. A transaction's own is that before it waited."""
        driver: Any = connection.connection.driver_connection
        query = "SELECT extract(epoch FROM clock_timestamp())::float8"
        return float(driver.execute(query).fetchone()[0])

    def is_missing(self) -> bool:
        """Say whether there is no table of ours."""
        with self.read() as connection:
            query = text("SELECT to_regclass('alembic_version') IS NULL")
            return bool(connection.execute(query).scalar_one())

    def require_usable(self, connection: Connection) -> None:
        """Require a server that can be written to, and texts of all characters."""
        query = "SELECT pg_is_in_recovery(), current_setting('server_encoding')"
        is_standby, encoding = connection.exec_driver_sql(query).one()
        if is_standby:
            raise SettingsError(
                f"The database {self._where!r} is on a standby server, which may only be read; "
                "name the primary one in IMAGEDEX_DATABASE_URL."
            )
        if encoding != "UTF8":
            raise SettingsError(
                f"The database {self._where!r} has the encoding {encoding}, which cannot hold all "
                "paths; create it with ENCODING 'UTF8' TEMPLATE template0."
            )

    def damage(self, connection: Connection) -> str | None:  # noqa: ARG002 - SQLite reads it all.
        """Find out nothing: its files are the server's, and what it cannot read it tells."""
        return None

    def back_up(self, target: Path) -> None:
        """Refuse: the server may be elsewhere, and its own tools do it."""
        raise Conflict(
            f"The database {self._where!r} is PostgreSQL's, of which Imagedex makes no backups, so "
            f"there is no {target.name!r}; use pg_dump, or what your server has for it, and set "
            "IMAGEDEX_BACKUP__SCHEDULE to nothing."
        )

    def move_aside(self) -> str:
        """Refuse: other controllers may use it, and the server's own tools mend it."""
        raise Conflict(
            f"The database {self._where!r} is PostgreSQL's, which Imagedex does not replace; stop "
            "all servers, restore it with pg_restore or create it anew, then run the repair again."
        )

    def close(self) -> None:
        """Close the connections that nobody uses."""
        for engine in (self._reading, self._alone, self._writing):
            engine.dispose()

    def _engine(
        self, isolation_level: Any, *, silent_seconds: int, pool_size: int, more: int
    ) -> Engine:
        options = {
            "lock_timeout": f"{_LOCK_TIMEOUT_SECONDS}s",
            "idle_in_transaction_session_timeout": f"{silent_seconds}s",
            **{f"tcp_{name}": value for name, value in _KEPT_ALIVE.items()},
            "tcp_user_timeout": _GONE_MILLISECONDS,
        }
        engine = create_engine(
            self._url,
            isolation_level=isolation_level,
            connect_args={
                "application_name": "imagedex",
                "client_encoding": "utf8",
                "connect_timeout": 5,
                # No statement is prepared but those of many rows. A plan that is kept for any
                # values compares each row with each path of a list, where the server does not know
                # yet how many rows there are: 34 s for a commit of 20,000 images.
                "prepare_threshold": _NEVER,
                "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
                "tcp_user_timeout": _GONE_MILLISECONDS,
                **_KEPT_ALIVE,
            },
            hide_parameters=True,
            max_overflow=more,
            pool_size=pool_size,
            pool_timeout=_LOCK_TIMEOUT_SECONDS,
            use_native_hstore=False,
        )
        event.listen(engine, "connect", _take_any_text)
        event.listen(engine, "checkin", _remember_when)
        event.listen(engine, "checkout", _require_alive)
        return engine


def _require_usable(url: URL) -> None:
    # No piece of it is quoted: with a character that should have been written
    # as %XX, they may be parts of each other.
    if not url.database:
        raise SettingsError(f"The database URL names no database; {_EXPECTED}.")
    if set(url.query) - _OPTIONS:
        raise SettingsError(
            "The database URL has options that are not supported; possible are "
            f"{', '.join(sorted(_OPTIONS))}. Write a '?' in a user or password as %3F."
        )


def _where(url: URL) -> str:
    def named(option: str, given: str) -> str:
        values = url.query.get(option, given)
        return values if isinstance(values, str) else ",".join(values)

    host = named("host", url.host or "")
    port = named("port", str(url.port or ""))
    return f"{host}{':' * bool(port)}{port}/{url.database}"


def _stand_in_line(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    driver.execute("SELECT pg_advisory_xact_lock(%s, %s)", _WRITERS_LOCK)


def _only_read(driver: psycopg.Connection[Any], _record: object) -> None:
    driver.read_only = True


class _AnyText(StrDumper):
    """Text without NUL, which no text of PostgreSQL holds, and messages of others may."""

    oid = 0  # Of no type: whatever stands there says which.

    def dump(self, obj: str) -> bytes:
        return obj.replace("\0", "\N{REPLACEMENT CHARACTER}").encode()


def _take_any_text(driver: psycopg.Connection[Any], _record: object) -> None:
    driver.adapters.register_dumper(str, _AnyText)


def _remember_when(_driver: object, record: Any) -> None:
    record.info["used_at"] = time.monotonic()


def _require_alive(driver: Any, record: Any, _proxy: object) -> None:
    """Have the pool make another connection in the place of one that broke while it was idle."""
    used_at = record.info.get("used_at")
    if used_at is None or time.monotonic() - used_at < _TRUSTED_SECONDS:
        return
    # Straight to libpq: the driver would begin a transaction.
    if driver.pgconn.exec_(b"").status != psycopg.pq.ExecStatus.EMPTY_QUERY:
        raise DisconnectionError
