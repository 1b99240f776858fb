"""What a kind of database brings along, behind :class:`imagedex.database.Database`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection


class DatabaseAdapter(Protocol):
    """The connections to one database. Safe to use from several threads.

    Each connection is for one block and one thread. The driver's errors leave a block as
    SettingsError, Unavailable or StorageError, but for broken rules of the tables and wrong
    statements, which are defects of the program.
    """

    @property
    def where(self) -> str:
        """Where it is, for messages: without user or password."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether processes on other machines may use it at the same time."""
        ...

    def write(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that excludes every other writer from its beginning.

        It commits at the end of the block, and rolls back when that raises. Of a process, one
        thread at a time.
        """
        ...

    def read(self) -> AbstractContextManager[Connection]:
        """Read one consistent state, that of the first statement. Writing fails."""
        ...

    def lone(self) -> AbstractContextManager[Connection]:
        """Let each statement be a transaction of its own, which does not stand in line."""
        ...

    def now(self, connection: Connection) -> float:
        """Return seconds since the epoch, of a clock that all who use the database share."""
        ...

    def require_usable(self, connection: Connection) -> None:
        """Raise SettingsError for a database that cannot hold what is written to it."""
        ...

    def is_missing(self) -> bool:
        """Say whether there is nothing at all where the database should be."""
        ...

    def damage(self, connection: Connection) -> str | None:
        """Return what is broken in it, if that can be found out."""
        ...

    def back_up(self, target: Path) -> None:
        """Copy one consistent state into a file of mode 0600 while it is in use.

        Raises Conflict where only the database's own tools do that.
        """
        ...

    def move_aside(self) -> str:
        """Give a damaged one another name, and return it. Nobody uses the database meanwhile.

        Raises Conflict where only the database's own tools do that.
        """
        ...

    def close(self) -> None:
        """Close the connections that nobody uses."""
        ...
