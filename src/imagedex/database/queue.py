"""The line in which the writers of this process stand."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class WriteQueue:
    """A lock that is given to waiting threads in the order of their coming."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._holder: int | None = None  # Thread that has the turn, or is being handed it.

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn, and hold it in the block. RuntimeError in a thread that has it."""
        self._acquire()
        try:
            yield
        finally:
            self._release()

    def _acquire(self) -> None:
        this_thread = threading.get_ident()
        with self._mutex:
            if self._holder == this_thread:
                raise RuntimeError(
                    "This thread is already inside a write transaction; pass that one on."
                )
            if self._holder is None:
                self._holder = this_thread
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        try:
            gate.acquire()
        except BaseException:
            # KeyboardInterrupt while waiting: step out of the line, or hand the turn on when
            # it had just been given, so that nobody waits for a thread that has left.
            with self._mutex:
                is_waiting = gate in self._waiting
                if is_waiting:
                    self._waiting.remove(gate)
            if not is_waiting:
                self._release()
            raise
        with self._mutex:
            self._holder = this_thread

    def _release(self) -> None:
        with self._mutex:
            if self._waiting:
                self._holder = 0  # No thread has this number: the turn is on its way.
                self._waiting.popleft().release()
            else:
                self._holder = None
