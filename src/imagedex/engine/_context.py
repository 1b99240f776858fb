"""What a chunk function finds in its worker process, whatever runs the worker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from imagedex.core.errors import EngineError

ResourceT = TypeVar("ResourceT")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Slot:
    lock: threading.RLock = field(default_factory=threading.RLock)
    made: bool = False
    value: Any = None


class ProcessContext:
    """A WorkerContext that keeps its resources until it is closed.

    Safe to call from several threads. One resource may ask for another while it is made, as
    long as they do not ask for each other in a circle.
    """

    def __init__(self, *, worker_id: str, host: str, threads: int) -> None:
        self._worker_id = worker_id
        self._host = host
        self._threads = threads
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._made: list[tuple[str, Any]] = []
        self._closed = False

    @property
    def worker_id(self) -> str:
        """The worker's name, the same for as long as the process lives."""
        return self._worker_id

    @property
    def host(self) -> str:
        """The machine's host name."""
        return self._host

    @property
    def threads(self) -> int:
        """The number of cores that the worker may keep busy."""
        return self._threads

    def resource(self, key: str, make: Callable[[], ResourceT]) -> ResourceT:
        """Return what was made under this key, making it first when it is not there.

        Raises EngineError when the context is closed.
        """
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
        # A lock for each key: a model that takes seconds to load holds up nobody who wants
        # another one.
        with slot.lock:
            if not slot.made:
                with self._lock:
                    if self._closed:
                        raise EngineError(
                            f"Worker {self._worker_id!r} is ending and makes no {key!r} any more; "
                            "run the chunk again on another worker."
                        )
                slot.value = make()
                slot.made = True
                with self._lock:
                    self._made.append((key, slot.value))
            return cast("ResourceT", slot.value)

    def close(self) -> None:
        """Close all resources that can be closed, the last one made first.

        A resource that fails to close is logged and the others are closed nevertheless. Calling
        it again does nothing.
        """
        with self._lock:
            self._closed = True
            made, self._made = self._made, []
            self._slots.clear()
        for key, value in reversed(made):
            close = getattr(value, "close", None)
            if close is None:
                continue
            try:
                close()
            except Exception:
                # Whatever one resource's close raises, the others hold processes and files too.
                _log.exception("Resource %r of worker %r did not close.", key, self._worker_id)
