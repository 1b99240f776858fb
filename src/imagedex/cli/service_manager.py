"""systemd, when it has started this process: it is told that the server is ready, lives, stops.

The protocol is that of sd_notify(3): datagrams of ``NAME=value`` lines to the socket that
``NOTIFY_SOCKET`` names. Other supervisors speak it too.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence

import structlog

_log = structlog.get_logger(__name__)


class ServiceManager:
    """Who has started this process and wants to hear of it; without an address, nobody.

    Parameters
    ----------
    address
        Path of its socket, or ``@`` and an abstract name (unix(7)).
    watchdog_seconds
        It kills a process that it hears nothing of for so long; None when it does not.
    """

    def __init__(self, address: str | None, watchdog_seconds: float | None = None) -> None:
        self._address = address
        self.watchdog_seconds = None if address is None else watchdog_seconds

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> ServiceManager:
        """Return the one that the environment names."""
        address = environment.get("NOTIFY_SOCKET")
        microseconds = environment.get("WATCHDOG_USEC", "")
        # The variables are inherited by what a service starts, and name whom they are meant for.
        is_meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        has_watchdog = is_meant and microseconds.isdecimal() and int(microseconds) > 0
        return cls(address or None, int(microseconds) / 1e6 if has_watchdog else None)

    def ready(self, status: str) -> None:
        """Tell that requests are answered from now on; ``status`` is for people."""
        self._tell("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        """Tell that the process is about to end; the watchdog no longer counts then."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Tell that all is well, within ``watchdog_seconds`` of the last time."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if self._address is None:
            return
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            # The server serves all the same; who waits to be told will say so in his own way.
            _log.warning("service_manager_not_told", address=self._address, reason=str(error))


class Watchdog:
    """A thread that tells the service manager that the process is alive while all of it moves.

    A process whose event loop is blocked, or whose jobs nobody leases any more, is dead to those
    who wait for it, although it is there: then the service manager is told nothing, and in time
    it kills the process and starts it anew.

    Parameters
    ----------
    stalled
        Given a patience in seconds, returns the names of the parts that have not moved for so
        long and should have. Is called on the thread, and must not wait for those parts.
    """

    def __init__(self, manager: ServiceManager, stalled: Callable[[float], Sequence[str]]) -> None:
        self._manager = manager
        self._stalled = stalled
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin, unless the service manager has no watchdog."""
        if self._manager.watchdog_seconds is not None:
            self._thread.start()

    def close(self) -> None:
        """End. Without a start this does nothing."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        limit = self._manager.watchdog_seconds
        assert limit is not None  # noqa: S101 - start() has looked.
        told: Sequence[str] = ()
        # Told four times within the limit, so that one late round or lost message costs nothing.
        while not self._closing.wait(limit / 4):
            try:
                stalled = self._stalled(limit / 2)
            except Exception:
                _log.exception("watchdog_cannot_look")
                continue
            if not stalled:
                self._manager.alive()
            elif stalled != told:
                _log.error("watchdog_not_told", stalled=stalled, limit_seconds=limit)
            told = stalled
