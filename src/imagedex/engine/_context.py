"""What a chunk function finds in its worker process, whatever runs the worker."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from imagedex.core.errors import ChunkStopped, EngineError
from imagedex.core.paths import PathMapping

ResourceT = TypeVar("ResourceT")

ProgressListener = Callable[[str, int, tuple[str, ...]], None]
"""Is told a call's id, its images that are done, and the paths of those in hand."""

_REPORT_SECONDS = 0.02  # No call tells of itself more often than that.
_REMEMBERED_STOPS = 256  # Of calls that have not begun, or have ended.

_log = logging.getLogger(__name__)


def _tell_nobody(_call_id: str, _images: int, _in_hand: tuple[str, ...]) -> None:
    """Be the listener of who has none."""


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

    def __init__(
        self,
        *,
        worker_id: str,
        host: str,
        threads: int,
        is_remote: bool = False,
        paths: PathMapping = PathMapping(),  # noqa: B008 - It is immutable.
        on_progress: ProgressListener = _tell_nobody,
    ) -> None:
        self._worker_id = worker_id
        self._host = host
        self._threads = threads
        self._is_remote = is_remote
        self._paths = paths
        self._on_progress = on_progress
        self._stopped: OrderedDict[str, None] = OrderedDict()
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

    @property
    def is_remote(self) -> bool:
        """Whether the worker runs on another machine than the controller."""
        return self._is_remote

    @property
    def paths(self) -> PathMapping:
        """Where the controller's directories lie on this machine."""
        return self._paths

    def call(self, call_id: str) -> CallContext:
        """Return the context of one call."""
        return CallContext(self, call_id, is_stopped=self._is_stopped, tell=self._on_progress)

    def stop(self, call_id: str) -> None:
        """Have a call end at its next sign of progress, also one that has yet to begin."""
        with self._lock:
            self._stopped[call_id] = None
            if len(self._stopped) > _REMEMBERED_STOPS:
                self._stopped.popitem(last=False)

    def _is_stopped(self, call_id: str) -> bool:
        return call_id in self._stopped  # One step under the interpreter's lock.

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


class CallContext:
    """The context of one call: its process's, and where the call tells how far it is."""

    def __init__(
        self,
        process: ProcessContext,
        call_id: str,
        *,
        is_stopped: Callable[[str], bool],
        tell: ProgressListener,
    ) -> None:
        self._process = process
        self._call_id = call_id
        self._is_stopped = is_stopped
        self._tell = tell
        self._told_at: float | None = None

    @property
    def worker_id(self) -> str:
        """The worker's name, the same for as long as the process lives."""
        return self._process.worker_id

    @property
    def host(self) -> str:
        """The machine's host name."""
        return self._process.host

    @property
    def threads(self) -> int:
        """The number of cores that the worker may keep busy."""
        return self._process.threads

    @property
    def is_remote(self) -> bool:
        """Whether the worker runs on another machine than the controller."""
        return self._process.is_remote

    @property
    def paths(self) -> PathMapping:
        """Where the controller's directories lie on this machine."""
        return self._process.paths

    def resource(self, key: str, make: Callable[[], ResourceT]) -> ResourceT:
        """Return what was made under this key in this process; see :class:`ProcessContext`."""
        return self._process.resource(key, make)

    def progress(self, images: int, in_hand: Sequence[str] = ()) -> None:
        """Say how far the call is. Raises ChunkStopped when it is to end."""
        if self._is_stopped(self._call_id):
            raise ChunkStopped(
                f"The chunk was told to stop when {images} of its images were done, on worker "
                f"{self.worker_id!r}."
            )
        now = time.monotonic()
        # What is said of many small batches would cost more than they do.
        if self._told_at is None or now - self._told_at >= _REPORT_SECONDS:
            self._told_at = now
            self._tell(self._call_id, images, tuple(in_hand))
