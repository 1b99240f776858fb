"""An engine without processes: its workers are threads."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from typing import Any

from imagedex.core.errors import EngineError
from imagedex.engine._context import ProcessContext
from imagedex.engine._dispatch import Call, Dispatcher, Wish, WorkerDied
from imagedex.engine._envelope import answer_call, name_of, open_answer, seal_call
from imagedex.engine._event_loop import EventLoopThread
from imagedex.engine._worker_config import CHUNKS_AT_ONCE
from imagedex.engine.interfaces import (
    ChunkFunction,
    PayloadT,
    ResourceT,
    ResultT,
    Seat,
    WorkerInfo,
)

_DEADLINE_SECONDS = 60.0  # Generous: it only decides how long a failing test takes.


class ThreadEngine:
    """An Engine whose workers are threads of this process; they share their resources.

    Seats are given as by any other engine, and payloads, results and exceptions are pickled as on
    their way to another process, so a test that passes here does not rely on shared memory. A chunk
    that raises ``WorkerDied`` plays that its worker dies: all chunks of that worker are lost, and
    another one comes in its place. :meth:`close` cannot end a thread that hangs: it takes back what
    has not begun and waits for the rest.
    """

    def __init__(
        self,
        *,
        workers: int = 2,
        threads_per_worker: int = 1,
        no_worker_seconds: float = 3600.0,
        stall_seconds: float = 3600.0,
    ) -> None:
        self._workers = workers
        self._threads = threads_per_worker
        self._no_worker_seconds = no_worker_seconds
        self._stall_seconds = stall_seconds
        self._lock = threading.Lock()
        self._troupe: _Troupe | None = None

    def start(self) -> None:
        """Start the threads."""
        with self._lock:
            if self._troupe is None:
                self._troupe = _Troupe(
                    self._workers,
                    self._threads,
                    no_worker_seconds=self._no_worker_seconds,
                    stall_seconds=self._stall_seconds,
                )

    def close(self) -> None:
        """Wait for what has begun, end the rest with EngineError, and close the resources."""
        with self._lock:
            troupe, self._troupe = self._troupe, None
        if troupe is not None:
            troupe.close()

    def workers(self) -> list[WorkerInfo]:
        """Return one worker for each thread."""
        troupe = self._troupe
        return [] if troupe is None else troupe.dispatcher.snapshot()

    def reserve(
        self, *, group: str | None = None, alone: bool = False, apart_from: str | None = None
    ) -> Future[Seat]:
        """Ask for a seat, of which each thread has two."""
        wish = Wish(Future(), group=group, alone=alone, apart_from=apart_from)
        troupe = self._troupe
        if troupe is None:
            wish.future.set_exception(EngineError("The engine is not running; start it."))
        else:
            troupe.on_loop(troupe.dispatcher.reserve, wish)
        return wish.future

    def submit(
        self,
        function: ChunkFunction[PayloadT, ResultT],
        payload: PayloadT,
        *,
        seat: Seat | None = None,
    ) -> Future[ResultT]:
        """Run the function on some thread."""
        try:
            sealed = seal_call(function, payload)
        except BaseException:
            if seat is not None:
                seat.release()
            raise
        call = Call(future=Future(), sealed=sealed, name=name_of(function))
        troupe = self._troupe
        if troupe is None:
            call.future.set_exception(EngineError("The engine is not running; start it."))
        else:
            troupe.on_loop(troupe.dispatcher.submit, call, seat)
        return call.future

    def stop(self, future: Future[Any]) -> None:
        """Cancel a chunk, or have one that has begun end at its next sign of progress."""
        troupe = self._troupe
        if not future.cancel() and troupe is not None:
            troupe.on_loop(troupe.dispatcher.stop, future)

    def lose_worker(self, worker_id: str, *, is_replaced: bool = True) -> None:
        """Play that a worker dies, with all that it runs."""
        troupe = self._troupe
        if troupe is not None:
            troupe.on_loop(troupe.lose, worker_id, is_replaced)


class _Troupe:
    """The threads of one life of a ThreadEngine, and the dispatcher that they play for."""

    def __init__(
        self, workers: int, threads: int, *, no_worker_seconds: float, stall_seconds: float
    ) -> None:
        self._host = socket.gethostname()
        self._threads = threads
        self._shared = ProcessContext(worker_id="shared", host=self._host, threads=threads)
        self._contexts: dict[str, _SharingContext] = {}
        self._deaths: dict[str, asyncio.Event] = {}
        self._lives = 0
        self._loop = EventLoopThread("thread-engine")
        # Each seat has a thread, and so has each chunk of a worker that was lost and still runs.
        self._pool = ThreadPoolExecutor(64, thread_name_prefix="worker")
        self._answers = ThreadPoolExecutor(4, thread_name_prefix="engine-answers")
        self.dispatcher = Dispatcher(
            self._run,
            self._settle,
            stop=self._stop,
            kill=self.lose,
            calls_per_worker=CHUNKS_AT_ONCE,
            no_worker_seconds=no_worker_seconds,
            stall_seconds=stall_seconds,
            why_no_worker=lambda: "its threads have ended.",
        )
        self._loop.run(self._begin(workers), timeout_seconds=_DEADLINE_SECONDS)

    async def _begin(self, workers: int) -> None:
        for number in range(1, workers + 1):
            self._add(number)

    def on_loop(self, callback: Callable[..., object], *args: Any) -> None:
        """Have a callback called where the dispatcher lives."""
        self._loop.call(callback, *args)

    def lose(self, worker_id: str, is_replaced: bool = True) -> None:
        """Play that a worker dies. On the loop."""
        if worker_id in self._contexts:
            del self._contexts[worker_id]
            self.dispatcher.remove_worker(worker_id)
            self._deaths.pop(worker_id).set()
            if is_replaced:
                self._add(int(worker_id.partition("-")[2].partition(".")[0]))

    def close(self) -> None:
        self._loop.run(self._close_dispatcher(), timeout_seconds=_DEADLINE_SECONDS)
        self._pool.shutdown(wait=True)
        self._answers.shutdown(wait=True)
        self._loop.close(timeout_seconds=_DEADLINE_SECONDS)
        self._shared.close()

    async def _close_dispatcher(self) -> None:
        self.dispatcher.close(EngineError("The engine was closed; start it again."))

    def _add(self, number: int) -> None:
        self._lives += 1
        worker_id = f"thread-{number}.{self._lives}"
        self._contexts[worker_id] = _SharingContext(
            self._shared, worker_id, threads=self._threads, on_progress=self._note_progress
        )
        self._deaths[worker_id] = asyncio.Event()
        slot = f"{self._host}/thread-{number}"
        self.dispatcher.add_worker(worker_id, host=self._host, slot=slot)

    async def _run(self, worker_id: str, call: Call) -> bytes:
        context = self._contexts[worker_id].call(call.call_id)
        died = asyncio.ensure_future(self._deaths[worker_id].wait())
        run = asyncio.get_running_loop().run_in_executor(
            self._pool, answer_call, context, call.sealed
        )
        ends: set[asyncio.Future[Any]] = {run, died}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        died.cancel()
        if worker_id in self._contexts and _is_death(answer := run.result()):
            self.lose(worker_id)
        if worker_id not in self._contexts:
            raise WorkerDied(f"Worker {worker_id!r} died.")
        return answer

    async def _stop(self, worker_id: str, call_id: str) -> None:
        if worker_id in self._contexts:
            self._contexts[worker_id].stop(call_id)

    def _note_progress(self, call_id: str, images: int, in_hand: tuple[str, ...]) -> None:
        self._loop.call(self.dispatcher.note_progress, call_id, images, in_hand)

    def _settle(self, call: Call, answer: bytes | BaseException) -> None:
        self._answers.submit(_resolve, call.future, answer)


class _SharingContext(ProcessContext):
    """The context of one thread, with the resources of all."""

    def __init__(
        self,
        shared: ProcessContext,
        worker_id: str,
        *,
        threads: int,
        on_progress: Callable[[str, int, tuple[str, ...]], None],
    ) -> None:
        super().__init__(
            worker_id=worker_id, host=shared.host, threads=threads, on_progress=on_progress
        )
        self._shared = shared

    def resource(self, key: str, make: Callable[[], ResourceT]) -> ResourceT:
        return self._shared.resource(key, make)


def _is_death(answer: bytes) -> bool:
    try:
        open_answer(answer)
    except WorkerDied:
        return True
    except BaseException:
        return False
    return False


def _resolve(future: Future[Any], answer: bytes | BaseException) -> None:
    try:
        result = open_answer(answer) if isinstance(answer, bytes) else None
        error = None if isinstance(answer, bytes) else answer
    except BaseException as raised:
        result, error = None, raised
    # While the engine closes, a future can be ended from two sides; the first one counts.
    with contextlib.suppress(InvalidStateError):
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
