"""What the keeper of a host asks of whatever carries a command there and its lines back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from imagedex.engine.hosts import HostSpec


class RemoteProcess(Protocol):
    """A command that runs on a host. Everything is called on one event loop."""

    def write(self, data: bytes) -> None:
        """Send to its standard input; never waits."""
        ...

    def output(self) -> AsyncIterator[bytes]:
        """Yield what it writes to standard output, in pieces, until it ends or the host is gone."""
        ...

    def complaints(self) -> str:
        """Return the last that it wrote to standard error."""
        ...

    async def wait(self) -> str:
        """Wait until it has ended, and say how: "ended with status 1"."""
        ...


class RemoteConnection(Protocol):
    """A connection to a host, on which commands are started."""

    @property
    def own_address(self) -> str:
        """The address of this machine by which the host knows it."""
        ...

    async def start(self, argv: Sequence[str]) -> RemoteProcess:
        """Start a command. Raises HostUnreachable, HostRefused."""
        ...

    def abort(self) -> None:
        """End it at once, telling nobody."""
        ...


Connect = Callable[[HostSpec], Awaitable[RemoteConnection]]
"""Opens a connection. Raises HostUnreachable when that may work later, and HostRefused."""
