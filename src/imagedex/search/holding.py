"""What is kept for a while because somebody may come back for it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

ValueT = TypeVar("ValueT")


class Holding(Generic[ValueT]):
    """Values by number, each for some time after it was last held, and at most so many.

    Safe to call from several threads.
    """

    def __init__(
        self, *, seconds: float, max_values: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._max_values = max_values
        self._clock = clock
        self._values: OrderedDict[int, tuple[ValueT, float]] = OrderedDict()
        self._lock = threading.Lock()

    def hold(self, number: int, value: ValueT) -> None:
        """Keep a value from now on; those held longest ago go when they are too many."""
        with self._lock:
            self._values[number] = (value, self._clock() + self._seconds)
            self._values.move_to_end(number)
            while len(self._values) > self._max_values:
                self._values.popitem(last=False)
            self._forget_old()

    def get(self, number: int) -> ValueT | None:
        """Return a value, None when its time is over or it was never held."""
        with self._lock:
            self._forget_old()
            entry = self._values.get(number)
            return None if entry is None else entry[0]

    def forget_old(self) -> None:
        """Let go of what nobody came back for."""
        with self._lock:
            self._forget_old()

    def _forget_old(self) -> None:
        now = self._clock()
        while self._values:
            number, (_, until) = next(iter(self._values.items()))  # The one held longest ago.
            if now < until:
                return
            del self._values[number]
