"""A thread that verifies indexes while they are served."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from imagedex.core.errors import ImagedexError

_LEAST_PRIORITY = 19

_log = structlog.get_logger(__name__)


class BackgroundVerifier:
    """Verifies the indexes that it is asked to, one after the other, after all other work.

    Until it is started, what it is asked for waits.
    """

    def __init__(self, verify: Callable[[Path, Callable[[], bool]], None]) -> None:
        """Take what verifies an index; its second argument says whether it must stop."""
        self._verify = verify
        self._changed = threading.Condition()
        self._waiting: dict[Path, None] = {}  # In the order in which they came.
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="verifier")
        self._thread.start()

    def ask(self, index_prefix: Path) -> None:
        """Have an index verified, soon."""
        with self._changed:
            self._waiting[index_prefix] = None
            self._changed.notify()

    def close(self) -> None:
        """End at once, in the midst of a file too."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        # Of this thread alone: Linux gives each thread a niceness of its own.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_PRIORITY)
        while (index_prefix := self._next()) is not None:
            try:
                self._verify(index_prefix, lambda: self._is_closed)
            except ImagedexError as error:
                # A share that is away: the next generation asks again.
                _log.warning(
                    "verification_put_off", index_prefix=str(index_prefix), reason=str(error)
                )

    def _next(self) -> Path | None:
        """Wait for an index and return it, or None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if self._is_closed:
                return None
            index_prefix = next(iter(self._waiting))
            del self._waiting[index_prefix]
            return index_prefix
