"""Serving what another process publishes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from imagedex.core.errors import ImagedexError

_log = structlog.get_logger(__name__)


class GenerationWatcher:
    """Looks each second for newer generations of some indexes, in a thread of its own.

    A look costs two small reads from the index's storage. What goes wrong is logged once, until
    it is something else.
    """

    def __init__(
        self,
        refresh: Callable[[Path], object],
        prefixes: Callable[[], Iterable[Path]],
        *,
        poll_seconds: float = 1.0,
    ) -> None:
        """Take what serves the current generation of an index, and what says which are watched."""
        self._refresh = refresh
        self._prefixes = prefixes
        self._poll_seconds = poll_seconds
        self._told: dict[Path, str] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="generations", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """End. Without a start this does nothing."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Look at all of them now."""
        for index_prefix in self._prefixes():
            try:
                self._refresh(index_prefix)
            except ImagedexError as error:
                if self._told.get(index_prefix) != str(error):
                    _log.error("index_not_opened", index_prefix=str(index_prefix), error=str(error))
                self._told[index_prefix] = str(error)
            else:
                self._told.pop(index_prefix, None)

    def _watch(self) -> None:
        while not self._closing.wait(self._poll_seconds):
            try:
                self.look()
            except Exception:
                # Whatever it was, what is published later must be served.
                _log.exception("generations_not_watched")
