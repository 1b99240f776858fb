"""What running chunks on workers is to the rest of Imagedex.

The engine knows nothing of images: it runs a function, named by its module, on a payload in
some worker process, and gives the function a context that lives as long as that process.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

PayloadT = TypeVar("PayloadT")
ResultT = TypeVar("ResultT")
ResourceT = TypeVar("ResourceT")


class WorkerStatus(StrEnum):
    """What a worker is doing."""

    IDLE = "idle"
    BUSY = "busy"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker as the engine sees it now."""

    worker_id: str
    host: str
    status: WorkerStatus


class WorkerContext(Protocol):
    """What a chunk function finds in its worker process."""

    @property
    def worker_id(self) -> str:
        """The worker's name, the same for as long as the process lives."""
        ...

    @property
    def host(self) -> str:
        """The machine's host name."""
        ...

    @property
    def threads(self) -> int:
        """The number of cores that the worker may keep busy."""
        ...

    def resource(self, key: str, make: Callable[[], ResourceT]) -> ResourceT:
        """Return what was made under this key in this process, making it when it is not there.

        This is how loaded models outlive the job that loaded them. A resource that has a
        ``close`` method is closed when the worker ends. Made once even when called from
        several threads; an exception of ``make`` is passed on and nothing is kept.
        """
        ...


ChunkFunction = Callable[[WorkerContext, PayloadT], ResultT]


class Engine(Protocol):
    """Runs chunks on workers. Safe to call from several threads."""

    def start(self) -> None:
        """Start the workers, and return when the first can take work.

        Raises EngineError, with the reason, when none can be started. Calling it again
        while it runs does nothing; after a failure or a close it starts anew.
        """
        ...

    def close(self) -> None:
        """End all workers, within seconds, also those that hang. Calling it again does nothing."""
        ...

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are connected now (an empty list when not started)."""
        ...

    @property
    def chunks_in_flight(self) -> int:
        """How many chunks a caller should keep submitted, so that no worker waits."""
        ...

    def submit(
        self,
        function: ChunkFunction[PayloadT, ResultT],
        payload: PayloadT,
        *,
        group: str | None = None,
    ) -> Future[ResultT]:
        """Run ``function(context, payload)`` on some worker.

        The function must be importable in the worker by its module and name, and it may run
        more than once when a worker dies. A worker may run more than one chunk at a time, each
        on a thread of its own, so that one can prepare while another works. The future ends
        with the function's result, with the exception that it raised, or with EngineError when
        workers died under it repeatedly or none is left. Cancelling the future takes a chunk
        back that has not begun. Chunks of one ``group`` run on one worker as long as it lives.
        Callbacks of the future are called on threads of the engine and
        should not wait for other chunks.

        Raises TypeError when a worker could not import the function, and what pickle raises when
        the payload cannot be pickled.
        """
        ...
