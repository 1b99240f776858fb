"""The engine of one machine: worker processes beside the controller, reached through Dask."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from imagedex.core.errors import EngineError
from imagedex.core.long_lived import spare_long_lived_objects
from imagedex.engine.interfaces import ChunkFunction, PayloadT, ResultT, Seat, WorkerInfo

if TYPE_CHECKING:
    from imagedex.engine._dask_session import DaskSession


class DaskLocalEngine:
    """Runs chunks in processes of this machine, two at a time in each.

    Workers run at lower priority than the controller (nice +10, batch scheduling), are replaced
    when they die, and never outlive the controller, not even its ``kill -9``. A chunk without a
    seat whose worker dies is run once more, alone on a worker; when that one dies too, the chunk's
    future ends with WorkerLost and the other chunks go on.

    A chunk counts as begun, and its future can no longer be cancelled, when it is handed to a
    worker. Callbacks of futures are called on threads of the engine; they may submit chunks,
    but should not wait for any. Dask is imported at the first start, which takes about a second.

    Parameters
    ----------
    workers
        Number of worker processes.
    threads_per_worker
        Cores that one worker may keep busy; 0 shares those of the machine among the workers.
    log_dir
        Gets a file ``worker-N.log`` for each worker; is made when it is not there.
    no_worker_seconds
        Who waits for a worker this long while none is connected is told so.
    stall_seconds
        A chunk that makes no progress for so long has its worker ended.
    """

    def __init__(
        self,
        *,
        workers: int,
        threads_per_worker: int = 0,
        log_dir: Path,
        no_worker_seconds: float = 60.0,
        stall_seconds: float = 300.0,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; it must be at least 1.")
        if threads_per_worker < 0:
            raise ValueError(f"threads_per_worker is {threads_per_worker}; it must not be < 0.")
        self._workers = workers
        # The cores that this process may use: a container or taskset may allow fewer than exist.
        self._threads = threads_per_worker or max(1, len(os.sched_getaffinity(0)) // workers)
        self._log_dir = log_dir
        self._no_worker_seconds = no_worker_seconds
        self._stall_seconds = stall_seconds
        self._starting = threading.Lock()
        self._session: DaskSession | None = None

    def start(self) -> None:
        """Start the workers, and return when the first can take work."""
        with self._starting:
            if self._session is not None:
                return
            try:
                from imagedex.engine._dask_session import DaskSession, EnginePlan
            except ModuleNotFoundError as error:
                raise EngineError(
                    f"The engine needs the package {error.name!r}, which is not installed; "
                    "run: pip install distributed cryptography"
                ) from error
            session = DaskSession(
                EnginePlan(
                    workers=self._workers,
                    threads_per_worker=self._threads,
                    log_dir=self._log_dir,
                    no_worker_seconds=self._no_worker_seconds,
                    stall_seconds=self._stall_seconds,
                )
            )
            # Known before it is open, so that close() reaches it while it waits for a worker.
            self._session = session
            try:
                session.open()
            except BaseException:
                # Also when Ctrl-C arrives here: half an engine must not stay behind.
                self._session = None
                session.close()
                raise
            spare_long_lived_objects()  # Dask's modules have just been loaded.

    def close(self) -> None:
        """End all workers, within seconds, also those that hang. Calling it again does nothing."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are connected now (an empty list when not started)."""
        session = self._session
        return [] if session is None else session.workers()

    def reserve(
        self, *, group: str | None = None, alone: bool = False, apart_from: str | None = None
    ) -> Future[Seat]:
        """Ask for a seat, of which each worker has two.

        While the engine is not started the future ends at once with EngineError.
        """
        session = self._session
        if session is None:
            return _refused()
        return session.reserve(group=group, alone=alone, apart_from=apart_from)

    def submit(
        self,
        function: ChunkFunction[PayloadT, ResultT],
        payload: PayloadT,
        *,
        seat: Seat | None = None,
    ) -> Future[ResultT]:
        """Run ``function(context, payload)`` on a seat's worker, or on the next that is free.

        Raises TypeError when a worker could not import the function. While the engine is not
        started the future ends at once with EngineError.
        """
        session = self._session
        if session is None:
            return _refused()
        return cast("Future[ResultT]", session.submit(function, payload, seat=seat))

    def stop(self, future: Future[Any]) -> None:
        """Cancel a chunk, or have one that has begun end at its next sign of progress."""
        session = self._session
        if session is not None:
            session.stop(future)


def _refused() -> Future[Any]:
    refused: Future[Any] = Future()
    refused.set_exception(
        EngineError("The engine is not running; start it and run the chunk again.")
    )
    return refused
