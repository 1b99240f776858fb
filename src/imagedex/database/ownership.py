"""Which process runs the jobs of a database: one at a time.

A database that lies in one file has one owner because a file is locked. Of one that several
machines share, the owner has a *term*: it holds a lease, which it renews, and stops by its own
clock before the lease ends. Whoever takes over raises the term; from then on every transaction of
the former owner is refused, however long it slept in between.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import structlog
from sqlalchemy import insert, select, update

from imagedex.core.errors import HomeInUse, ImagedexError, OwnershipLost, StorageError
from imagedex.database.connections import Database, Snapshot, Transaction
from imagedex.database.file_lock import FileLock
from imagedex.database.tables import indexes, jobs, leadership

LEASE_SECONDS = 8.0
RENEW_SECONDS = 2.0
_MARGIN_SECONDS = 2.0  # Before the end of a lease that could not be renewed, its owner stops.

_ONE = 1  # The key of the one row.

_log = structlog.get_logger(__name__)


class Ownership(Protocol):
    """The right to run the jobs of a database. Safe to call from several threads."""

    @property
    def term(self) -> int:
        """How often it has been taken by anybody, at the last time that it was taken here.

        0 where nobody can take it away.
        """
        ...

    @property
    def is_shared(self) -> bool:
        """Whether others wait for it: then it must be renewed, and can be lost."""
        ...

    @property
    def has_run_out(self) -> bool:
        """Whether another may take it at any moment, whatever a renewal under way comes to."""
        ...

    def try_take(self) -> bool:
        """Take it when it is free, and say so. Raises HomeInUse where waiting is of no use."""
        ...

    def renew(self) -> None:
        """Keep it. Raises OwnershipLost when another has taken it, or may have."""
        ...

    def require_held(self, transaction: Transaction) -> None:
        """Raise OwnershipLost in a transaction of a process that has lost it."""
        ...

    def release(self) -> None:
        """Give it back; without having it this does nothing."""
        ...


class FileOwnership:
    """The ownership of a database in one file, beside which another file is locked.

    The operating system gives it back when the process dies, however that happens, so nobody has to
    renew it and nobody can take it away.
    """

    term = 0
    is_shared = False
    has_run_out = False

    def __init__(self, database: Database) -> None:
        """Take the database, whose directory must be there when the ownership is taken."""
        self._where = database.where
        self._lock = FileLock(
            Path(f"{database.where}.lock"),
            what=f"The database {database.where!r}",
            remedy="talk to that server over its API (IMAGEDEX_URL), or stop it first, or give "
            "this home a database of its own (IMAGEDEX_DATABASE_URL)",
        )

    def try_take(self) -> bool:
        """Take it. Raises HomeInUse, naming the holder, when another process has it."""
        try:
            self._lock.acquire()
        except OSError as error:
            raise StorageError(
                f"The database {self._where!r} cannot be locked: {error.strerror}; check that its "
                "directory exists and may be written."
            ) from error
        return True

    def renew(self) -> None:
        """Do nothing: it stays."""

    def require_held(self, transaction: Transaction) -> None:
        """Do nothing: it stays."""

    def release(self) -> None:
        """Give it back."""
        self._lock.release()


class SharedOwnership:
    """The ownership of a database that several machines use, by a lease with a rising term."""

    is_shared = True

    def __init__(
        self,
        database: Database,
        *,
        holder: str,
        url: str,
        lease_seconds: float = LEASE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the database; ``holder`` is a name that no other process ever has.

        ``url`` is where this process is reached, for messages to others.
        """
        self._database = database
        self._holder = holder
        self._url = url
        self._lease_seconds = lease_seconds
        self._monotonic = monotonic
        self._term = 0
        self._is_held = False
        # Nobody can take it before this moment, which moves with each renewal.
        self._held_until = 0.0

    @property
    def term(self) -> int:
        """The term in which it was taken here the last time; 0 before."""
        return self._term

    def try_take(self) -> bool:
        """Take it when no lease holds it; return whether it was taken.

        What the former owner runs is expired, and all fences rise, so that whatever it has begun
        is refused. Raises Unavailable, StorageError.
        """
        # Most often it is not free, and a look keeps no writer waiting.
        with self._database.read() as snapshot:
            if not _is_free(snapshot):
                return False
        began = self._monotonic()
        with self._database.transaction() as transaction:
            if not _is_free(transaction):
                return False
            connection = transaction.connection
            now = transaction.now()
            row = connection.execute(select(leadership)).one_or_none()
            term = 1 if row is None else row.term + 1
            values = {
                "term": term,
                "holder": self._holder,
                "url": self._url,
                "lease_until": now + self._lease_seconds,
            }
            if row is None:
                connection.execute(insert(leadership).values(leadership=_ONE, **values))
            else:
                connection.execute(update(leadership).values(**values))
            connection.execute(update(indexes).values(fence=indexes.c.fence + 1))
            running = jobs.c.lease_until.is_not(None)
            connection.execute(update(jobs).where(running).values(lease_until=0.0))
        self._term = term
        self._held_until = began + self._lease_seconds
        self._is_held = True
        return True

    def renew(self) -> None:
        """Extend the lease from now on. Raises OwnershipLost; other errors may pass in time."""
        # The lease counts from before the call, since nobody knows how long the call takes.
        began = self._monotonic()
        try:
            with self._database.lone() as snapshot:
                until = snapshot.now() + self._lease_seconds
                renewed = snapshot.connection.execute(
                    update(leadership)
                    .where(leadership.c.term == self._term, leadership.c.holder == self._holder)
                    .values(lease_until=until)
                ).rowcount
        except ImagedexError as error:
            if self._monotonic() < self._held_until - _MARGIN_SECONDS:
                raise
            self._is_held = False
            raise OwnershipLost(
                f"The lease of the database {self._database.where!r} could not be renewed in time, "
                f"so another controller may take over ({error}); this one stops its jobs."
            ) from error
        if not renewed:
            self._is_held = False
            raise OwnershipLost(
                f"Another controller has taken over the jobs of the database "
                f"{self._database.where!r}; this one stops its jobs and stands by."
            )
        self._held_until = began + self._lease_seconds

    @property
    def has_run_out(self) -> bool:
        """Whether another may take it at any moment, whatever a renewal under way comes to."""
        return self._monotonic() >= self._held_until - _MARGIN_SECONDS

    def require_held(self, transaction: Transaction) -> None:
        """Raise OwnershipLost when another has taken over since it was taken here."""
        term = transaction.connection.execute(select(leadership.c.term)).scalar_one_or_none()
        if term != self._term:
            raise OwnershipLost(
                f"Term {term} has begun since term {self._term} of this controller: another one "
                "has taken over the jobs, and nothing more of this one is recorded."
            )

    def release(self) -> None:
        """Give it back, so that another need not wait for the end of the lease."""
        if not self._is_held:
            return
        self._is_held = False
        try:
            with self._database.lone() as snapshot:
                snapshot.connection.execute(
                    update(leadership)
                    .where(leadership.c.term == self._term, leadership.c.holder == self._holder)
                    .values(lease_until=0.0)
                )
        except ImagedexError as error:  # Then it ends by itself.
            _log.warning("ownership_not_released", error=str(error))


def _is_free(snapshot: Snapshot) -> bool:
    until = snapshot.connection.execute(select(leadership.c.lease_until)).scalar_one_or_none()
    return until is None or until <= snapshot.now()


def in_use(database: Database) -> HomeInUse:
    """Return the error for a database whose jobs another controller runs, which it names."""
    with database.read() as snapshot:
        row = snapshot.connection.execute(select(leadership)).one_or_none()
    owner = "another controller" if row is None else f"{row.holder} at {row.url}"
    return HomeInUse(
        f"The jobs of the database {database.where!r} are run by {owner}; talk to that server over "
        "its API (IMAGEDEX_URL), or stop all controllers first."
    )


@contextmanager
def held(ownership: Ownership, database: Database) -> Iterator[None]:
    """Hold an ownership in the block, renewing it. Raises HomeInUse when another process has it."""
    if not ownership.try_take():
        raise in_use(database)
    ends = threading.Event()

    def keep() -> None:
        while not ends.wait(RENEW_SECONDS):
            try:
                ownership.renew()
            except OwnershipLost as error:
                _log.error("ownership_lost", error=str(error))
                return
            except ImagedexError as error:
                _log.warning("ownership_not_renewed", error=str(error))

    keeper = threading.Thread(target=keep, name="ownership", daemon=True)
    try:
        if ownership.is_shared:
            keeper.start()
        yield
    finally:
        ends.set()
        ownership.release()
