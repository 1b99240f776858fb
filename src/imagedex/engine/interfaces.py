"""What running chunks on workers is to the rest of Imagedex.

The engine knows nothing of images: it runs a function, named by its module, on a payload in
some worker process, and gives the function a context that lives as long as that process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from imagedex.core.paths import PathMapping

PayloadT = TypeVar("PayloadT")
ResultT = TypeVar("ResultT")
ResourceT = TypeVar("ResourceT")


class WorkerStatus(StrEnum):
    """What a worker is doing."""

    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"  # It ends what it has, and gets nothing more.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker as the engine sees it now."""

    worker_id: str
    host: str
    status: WorkerStatus
    slot: str  # Its place, which outlives it: what a measured rate belongs to.
    images_in_chunk: int = 0  # Done of the chunks that it has now, as it said last.


class Seat(Protocol):
    """The right to give one worker one chunk. Safe to use from several threads."""

    @property
    def worker(self) -> WorkerInfo:
        """The worker, as it was when the seat was given."""
        ...

    def release(self) -> None:
        """Give the seat back unused. After a submit on it, and again, this does nothing."""
        ...


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

    @property
    def is_remote(self) -> bool:
        """Whether the worker runs on another machine than the controller.

        What is missing there may be there for the others: the chunk then raises UnfitWorker.
        """
        ...

    @property
    def paths(self) -> PathMapping:
        """Where the controller's directories lie on this machine."""
        ...

    def resource(self, key: str, make: Callable[[], ResourceT]) -> ResourceT:
        """Return what was made under this key in this process, making it when it is not there.

        This is how loaded models outlive the job that loaded them. A resource that has a
        ``close`` method is closed when the worker ends. Made once even when called from
        several threads; an exception of ``make`` is passed on and nothing is kept.
        """
        ...

    def progress(self, images: int, in_hand: Sequence[str] = ()) -> None:
        """Say how many images of the chunk are done, and which the worker turns to now.

        To be called at each batch: a chunk from which nothing comes for long is taken to hang,
        and when the worker dies, what was in hand is suspected first. Costs microseconds.

        Raises ChunkStopped when the chunk is to end; let it pass.
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

    def reserve(
        self, *, group: str | None = None, alone: bool = False, apart_from: str | None = None
    ) -> Future[Seat]:
        """Ask for a seat on the worker that has the least to do, to choose a chunk for it then.

        A worker has two seats: while one chunk is worked on, another prepares. Who asks first is
        served first. Seats of one ``group`` are on one worker as long as it lives; who waits for
        that worker lets others pass. ``alone`` asks for a worker that has no other chunk, and
        gets none meanwhile; ``apart_from`` names a host that is not to be chosen while
        there is another.

        Cancelling the future withdraws the wish; when that fails, a seat has come, which
        must be used or released. The future ends with NoWorkers when none was connected for a
        set time, and with EngineError when the engine is closed. Its callbacks must return at
        once.
        """
        ...

    def submit(
        self,
        function: ChunkFunction[PayloadT, ResultT],
        payload: PayloadT,
        *,
        seat: Seat | None = None,
    ) -> Future[ResultT]:
        """Run ``function(context, payload)`` on the worker of a seat, or on the next that is free.

        The function must be importable in the worker by its module and name. Chunks of one worker
        run on threads of their own. The future ends with the function's result, with the exception
        that it raised, with ChunkStopped, or with WorkerLost: at once when it was given a seat,
        and without one after a second worker died under it, with which it was alone. It may end
        with any other EngineError, and without a seat with NoWorkers. Cancelling the future
        takes a chunk back that has not begun. A chunk that makes no progress for long has its
        worker ended. Callbacks of the future are called on threads of the engine
        and should not wait for other chunks.

        Raises TypeError when a worker could not import the function, and what pickle raises when
        the payload cannot be pickled; a seat is released then.
        """
        ...

    def stop(self, future: Future[Any]) -> None:
        """Cancel a chunk, or have one that has begun end at its next sign of progress.

        It then ends with ChunkStopped, or with what it was about to end with. Returns at once.
        """
        ...
