"""Something that goes on while something else is measured."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class Background(ABC):
    """Runs in a thread from the beginning of a block to its end, and is waited for there."""

    def __init__(self) -> None:
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._thread.join()

    @abstractmethod
    def _run(self) -> None:
        """Do it, until ``_is_done`` is set where it has no end of its own."""
