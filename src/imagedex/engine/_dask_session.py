"""One run of the local engine, from its start to its close."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagedex.core.errors import EngineError
from imagedex.engine._certificate import new_certificate
from imagedex.engine._dask_config import configure_dask
from imagedex.engine._dask_hub import DaskHub
from imagedex.engine._dispatch import Call, Dispatcher, Wish
from imagedex.engine._envelope import name_of, open_answer, seal_call
from imagedex.engine._event_loop import EventLoopThread
from imagedex.engine._scratch import scratch_directory
from imagedex.engine._supervisor import Supervisor, WorkerExit
from imagedex.engine._worker_config import CHUNKS_AT_ONCE, WorkerConfig
from imagedex.engine._worker_log import WorkerLog
from imagedex.engine._worker_process import WorkerProcess
from imagedex.engine.interfaces import Seat, WorkerInfo

_WORKER_MODULE = "imagedex.engine._dask_worker"
_START_SECONDS = 60.0
_GRACE_SECONDS = 3.0  # For a worker to close its resources before it is killed.
_HUB_CLOSE_SECONDS = 12.0
_LOG_CHECK_SECONDS = 60.0
_ANSWER_THREADS = 8


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What workers there shall be."""

    workers: int
    threads_per_worker: int  # Cores of one worker, at least 1.
    log_dir: Path
    no_worker_seconds: float
    stall_seconds: float


class DaskSession:
    """Workers, the hub they connect to, and the calls they run. Is opened once, closed once.

    All methods may be called from any thread, and :meth:`close` also while :meth:`open` waits.
    """

    def __init__(self, plan: EnginePlan) -> None:
        self._plan = plan
        self._host = socket.gethostname()
        self._certificate = new_certificate()
        self._resources = contextlib.ExitStack()
        self._closing = threading.Lock()
        self._closed = False
        self._ready: Future[None] = Future()  # Done when the first worker can take work.
        self._last_exit: WorkerExit | None = None
        self._failed_slots: set[int] = set()
        self._logs = [
            WorkerLog(plan.log_dir / f"worker-{slot}.log") for slot in range(1, plan.workers + 1)
        ]
        # Before Dask puts its scratch directory on the module path of this process.
        # Made absolute and no more: resolve() would follow links that an installation relies on.
        self._module_path = [os.path.abspath(entry) for entry in sys.path if entry]  # noqa: PTH100
        # Results are unpickled and callbacks called here: on the event loop a slow one would
        # hold up all workers.
        self._answers = ThreadPoolExecutor(_ANSWER_THREADS, thread_name_prefix="engine-answers")
        self._loop = EventLoopThread("engine")
        self._dispatcher = Dispatcher(
            self._run_on,
            self._settle,
            stop=self._stop_on,
            kill=self._kill,
            calls_per_worker=CHUNKS_AT_ONCE,
            no_worker_seconds=plan.no_worker_seconds,
            stall_seconds=plan.stall_seconds,
            why_no_worker=self._why_no_worker,
        )
        self._hub: DaskHub | None = None
        self._supervisor: Supervisor | None = None

    def open(self) -> None:
        """Start everything and return when the first worker can take work; raises EngineError."""
        configure_dask()
        try:
            scratch = self._resources.enter_context(scratch_directory())
            address = self._loop.run(self._start_hub(scratch), timeout_seconds=_START_SECONDS)
        except Exception as error:
            # Dask raises many things when it cannot listen: OSError, RuntimeError, ValueError.
            raise EngineError(
                f"The engine could not be started: {type(error).__name__}: {error}; it needs a "
                "free port on 127.0.0.1 and room in the temporary directory."
            ) from error
        supervisor = Supervisor(
            lambda worker_id, log: self._launch(worker_id, log, address, scratch),
            logs=self._logs,
            on_exit=self._worker_exited,
        )
        with self._closing:
            if self._closed:
                raise _closed_error()
            self._supervisor = supervisor
            supervisor.start()
        try:
            self._ready.result(_START_SECONDS)
        except TimeoutError as error:
            raise EngineError(
                f"No worker was ready within {_START_SECONDS:g} seconds; {self._why_no_worker()}"
            ) from error
        self._loop.call(self._bound_logs)

    def close(self) -> None:
        """End all workers and all calls, within seconds. Calling it again waits for the end."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._resolve_ready(_closed_error())
            if self._supervisor is not None:
                self._supervisor.close(grace_seconds=_GRACE_SECONDS)
            with contextlib.suppress(TimeoutError):
                self._loop.run(self._close_hub(), timeout_seconds=_HUB_CLOSE_SECONDS)
            self._loop.close(timeout_seconds=_HUB_CLOSE_SECONDS)
            # Not waiting: this may be one of the callbacks that run there.
            self._answers.shutdown(wait=False)
            self._resources.close()

    def reserve(self, *, group: str | None, alone: bool, apart_from: str | None) -> Future[Seat]:
        """Ask for a seat; see :class:`imagedex.engine.Engine`."""
        wish = Wish(Future(), group=group, alone=alone, apart_from=apart_from)
        if not self._loop.call(self._dispatcher.reserve, wish) or self._closed:
            _resolve(wish.future, _closed_error())
        return wish.future

    def submit(
        self, function: Callable[..., Any], payload: object, *, seat: Seat | None = None
    ) -> Future[Any]:
        """Run a function on a worker; raises TypeError when that could not import it."""
        try:
            sealed = seal_call(function, payload)
        except BaseException:
            if seat is not None:
                seat.release()
            raise
        call = Call(future=Future(), sealed=sealed, name=name_of(function))
        # A loop that is stopping takes callbacks and forgets them; what was accepted before the
        # close began is ended by it.
        if not self._loop.call(self._dispatcher.submit, call, seat) or self._closed:
            _resolve(call.future, _closed_error())
        return call.future

    def stop(self, future: Future[Any]) -> None:
        """Cancel a chunk, or have it end soon; see :class:`imagedex.engine.Engine`."""
        if not future.cancel():
            self._loop.call(self._dispatcher.stop, future)

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that are connected now."""
        return self._dispatcher.snapshot()

    async def _start_hub(self, scratch: Path) -> str:
        self._hub = DaskHub(
            self._certificate,
            scratch=scratch,
            on_join=self._worker_joined,
            on_leave=self._worker_left,
            on_progress=self._dispatcher.note_progress,
        )
        return await self._hub.start()

    async def _close_hub(self) -> None:
        self._dispatcher.close(_closed_error())
        if self._hub is not None:
            await self._hub.close()

    def _launch(self, worker_id: str, log: WorkerLog, address: str, scratch: Path) -> WorkerProcess:
        config = WorkerConfig(
            worker_id=worker_id,
            host=self._host,
            threads=self._plan.threads_per_worker,
            scheduler_address=address,
            scratch_directory=str(scratch),
            controller_pid=os.getpid(),
            certificate=self._certificate,
        )
        return WorkerProcess(config, module=_WORKER_MODULE, module_path=self._module_path, log=log)

    async def _run_on(self, worker_id: str, call: Call) -> bytes:
        assert self._hub is not None  # noqa: S101 - There is a worker, so there is a hub.
        return await self._hub.run(worker_id, call.sealed, call.call_id)

    async def _stop_on(self, worker_id: str, call_id: str) -> None:
        assert self._hub is not None  # noqa: S101 - There is a worker, so there is a hub.
        await self._hub.stop_call(worker_id, call_id)

    def _worker_joined(self, worker_id: str) -> None:
        slot = f"{self._host}/{worker_id.partition('.')[0]}"
        self._dispatcher.add_worker(worker_id, host=self._host, slot=slot)
        self._resolve_ready(None)

    def _worker_left(self, worker_id: str) -> None:
        self._dispatcher.remove_worker(worker_id)
        # Whatever cut it off, it may still run: its slot is needed for one that answers.
        self._kill(worker_id)

    def _kill(self, worker_id: str) -> None:
        # Not on this thread, since the supervisor may hold its lock while it starts another
        # process.
        if self._supervisor is not None and not self._closed:
            asyncio.get_running_loop().run_in_executor(
                self._answers, self._supervisor.kill, worker_id
            )

    def _worker_exited(self, exit_: WorkerExit) -> None:
        self._last_exit = exit_
        self._failed_slots.add(exit_.slot)
        if len(self._failed_slots) == self._plan.workers:
            # Does nothing when a worker has been ready once.
            self._resolve_ready(EngineError(f"No worker could be started: {self._why_no_worker()}"))

    def _why_no_worker(self) -> str:
        if self._last_exit is None:
            return f"the workers' logs are in {str(self._plan.log_dir)!r}."
        last = self._last_exit
        return (
            f"worker {last.worker_id!r} {last.how}. Its log, below {str(self._plan.log_dir)!r}, "
            f"ends with:\n{last.log_tail}"
        )

    def _resolve_ready(self, error: EngineError | None) -> None:
        # The first word counts, whoever says it.
        with contextlib.suppress(InvalidStateError):
            if error is None:
                self._ready.set_result(None)
            else:
                self._ready.set_exception(error)

    def _settle(self, call: Call, answer: bytes | BaseException) -> None:
        self._answers.submit(_resolve, call.future, answer)

    def _bound_logs(self) -> None:
        for log in self._logs:
            # On a full or vanished disk there is nothing to bound; the next round tries again.
            with contextlib.suppress(OSError):
                log.bound()
        asyncio.get_running_loop().call_later(_LOG_CHECK_SECONDS, self._bound_logs)


def _closed_error() -> EngineError:
    return EngineError(
        "The engine was closed before the chunk ended; start the engine and run the chunk again."
    )


def _resolve(future: Future[Any], answer: bytes | BaseException) -> None:
    error: BaseException | None = None
    result = None
    if isinstance(answer, BaseException):
        error = answer
    else:
        try:
            result = open_answer(answer)
        except BaseException as raised:
            # It is the chunk's exception, whatever it is, and belongs to who asked.
            error = raised
    # While the engine closes, a future can be ended from two sides; the first one counts.
    with contextlib.suppress(InvalidStateError):
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
