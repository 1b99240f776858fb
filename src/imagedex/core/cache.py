"""A bounded memory of what was used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class LruCache(Generic[KeyT, ValueT]):
    """The values used last, at most so many and of at most so much weight in all.

    Safe to call from several threads; the lock is held for a few dictionary operations only.
    """

    def __init__(self, *, max_entries: int, max_weight: int) -> None:
        """Keep at most ``max_entries`` values (0 keeps none), ``max_weight`` in all."""
        self._max_entries = max_entries
        self._max_weight = max_weight
        self._weight = 0
        self._entries: OrderedDict[KeyT, tuple[ValueT, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def get(self, key: KeyT) -> ValueT | None:
        """Return the value kept under this key, or None; it now is the one used last."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def put(self, key: KeyT, value: ValueT, *, weight: int = 1) -> None:
        """Keep a value, and forget those used longest ago that it leaves no room for.

        A value that weighs more than all may weigh together is not kept.
        """
        with self._lock:
            replaced = self._entries.pop(key, None)
            if replaced is not None:
                self._weight -= replaced[1]
            if weight > self._max_weight:
                return
            self._entries[key] = (value, weight)
            self._weight += weight
            while len(self._entries) > self._max_entries or self._weight > self._max_weight:
                _, (_, forgotten) = self._entries.popitem(last=False)
                self._weight -= forgotten

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()
            self._weight = 0
