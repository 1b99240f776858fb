"""A point at which a test holds a thread up."""

from __future__ import annotations

import threading

_WAIT_SECONDS = 60


class Gate:
    """Holds a thread up at one point until it is opened."""

    def __init__(self) -> None:
        self.is_reached = threading.Event()
        self._opened = threading.Event()

    def pass_through(self) -> None:
        """Wait until it is open."""
        self.is_reached.set()
        assert self._opened.wait(_WAIT_SECONDS)

    def open(self) -> None:
        """Let everybody through from now on."""
        self._opened.set()

    def wait_until_reached(self) -> None:
        """Wait for the thread that is to be held up."""
        assert self.is_reached.wait(_WAIT_SECONDS)
