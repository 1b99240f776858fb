"""Giving chunks to workers, as they have seats for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from imagedex.core.errors import ChunkStopped, EngineError, WorkerLost
from imagedex.engine import Engine, Seat, WorkerInfo
from imagedex.indexing.chunk import ChunkTask, embed_chunk
from imagedex.indexing.supply import ChunkSupply, Need, Run
from imagedex.jobs import ChunkDone, JobCancelled

_STOP_CHECK_SECONDS = 0.5
"""How often a job that waits for its workers looks whether it should stop."""

_CANCEL_CHECK_SECONDS = 0.25
"""How often it is seen whether the job was cancelled, also while its own thread publishes."""

_MAX_FAILED_CHUNKS = 3
"""In one run of a job; with more of them it is the engine that fails and not a chunk."""


def embed_all(
    engine: Engine,
    supply: ChunkSupply,
    *,
    on_done: Callable[[ChunkDone], None],
    on_tick: Callable[[], None],
    is_cancelled: Callable[[], bool],
    group: str | None = None,
) -> None:
    """Have workers embed chunks, and call ``on_done`` for each and ``on_tick`` in between.

    ``supply`` is asked for a chunk when a worker has a seat; with a ``group`` one worker does
    them all. A chunk that fails must not keep the others from being done, so its EngineError is
    raised at the end; when several fail, no more are begun. What either function raises ends it
    at once, and workers end what they have begun, so that its parts can be taken up later.

    When ``is_cancelled``, which is asked on another thread, the workers are free after the batch
    that they have, and JobCancelled is raised. Raises NoWorkers when there are none for long.
    """
    engine.start()
    dispatch = _Dispatch(engine, supply, on_done, group)
    try:
        with _watching(is_cancelled, dispatch):
            while dispatch.step():
                on_tick()
            if dispatch.is_stopped:
                raise JobCancelled("The job was cancelled by request.")
            for done in supply.verdicts(is_end=True):
                on_done(done)
    except JobCancelled:
        dispatch.stop()
        raise
    finally:
        dispatch.withdraw()
    if dispatch.failed:
        raise dispatch.failed[0]


@contextmanager
def _watching(is_cancelled: Callable[[], bool], dispatch: _Dispatch) -> Iterator[None]:
    """Stop the chunks of a job as soon as it is cancelled."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(_CANCEL_CHECK_SECONDS):
            if is_cancelled():
                dispatch.stop()
                return

    thread = threading.Thread(target=watch, name="cancel-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@dataclass(slots=True, eq=False)
class _Sent:
    """A chunk that a worker has."""

    task: ChunkTask
    worker: WorkerInfo
    began_at: float
    ended_at: float = 0.0

    def note_end(self, _: Future[ChunkDone]) -> None:
        # Here, since the job's thread may be publishing when the chunk is done.
        self.ended_at = time.monotonic()


class _Dispatch:
    """What one job has asked of the engine."""

    def __init__(
        self,
        engine: Engine,
        supply: ChunkSupply,
        on_done: Callable[[ChunkDone], None],
        group: str | None,
    ) -> None:
        self._engine = engine
        self._supply = supply
        self._on_done = on_done
        self._group = group
        self._asked: dict[Future[Seat], Need] = {}
        self._sent: dict[Future[ChunkDone], _Sent] = {}
        self._sending = threading.Lock()
        self.failed: list[EngineError] = []
        self.is_stopped = False

    def step(self) -> bool:
        """Wait for something to happen, for a while, and see to it; False when all is done."""
        if len(self.failed) < _MAX_FAILED_CHUNKS and not self.is_stopped:
            self._ask()
        waiting: list[Future[Any]] = [*self._asked, *self._sent]
        if not waiting:
            return False
        happened, _ = wait(waiting, timeout=_STOP_CHECK_SECONDS, return_when=FIRST_COMPLETED)
        for seat in [seat for seat in self._asked if seat in happened]:
            self._fill(seat.result(), self._asked.pop(seat))
        for future in [future for future in self._sent if future in happened]:
            with self._sending:
                sent = self._sent.pop(future)
            self._receive(future, sent)
        for done in self._supply.verdicts():
            self._on_done(done)
        return True

    def stop(self) -> None:
        """Have all chunks end that workers have, and send no more. Also for other threads."""
        with self._sending:
            self.is_stopped = True
            sent = list(self._sent)
        for future in sent:
            self._engine.stop(future)

    def withdraw(self) -> None:
        """Ask for nothing more, and take back what has not begun."""
        for seat in self._asked:
            if not seat.cancel():
                seat.add_done_callback(_release)
        for future in self._sent:
            future.cancel()

    def _ask(self) -> None:
        asked = {need.alone for need in self._asked.values()}
        for need in self._supply.needs():
            if need.alone not in asked:
                group = None if need.alone else self._group
                seat = self._engine.reserve(
                    group=group, alone=need.alone, apart_from=need.apart_from
                )
                self._asked[seat] = need

    def _fill(self, seat: Seat, need: Need) -> None:
        try:
            workers = 1 if self._group is not None else len(self._engine.workers())
            task = self._supply.take(need, seat.worker, workers=workers)
        except BaseException:
            seat.release()
            raise
        if task is None:
            seat.release()
            return
        sent = _Sent(task, seat.worker, began_at=time.monotonic())
        with self._sending:
            if self.is_stopped:
                seat.release()
                return
            future = self._engine.submit(embed_chunk, task, seat=seat)
            self._sent[future] = sent
        future.add_done_callback(sent.note_end)

    def _receive(self, future: Future[ChunkDone], sent: _Sent) -> None:
        try:
            done = future.result()
        except (ChunkStopped, CancelledError):
            return  # The job is cancelled, as its thread is about to see.
        except WorkerLost as loss:
            self._supply.lost(sent.task, loss)
        except EngineError as error:
            self.failed.append(error)
        else:
            self._on_done(done)
            # Whoever waits for a future may be woken before its callbacks are called.
            ended_at = sent.ended_at or time.monotonic()
            self._supply.done(sent.task, done, Run(sent.worker, sent.began_at, ended_at))


def _release(seat: Future[Seat]) -> None:
    if not seat.cancelled() and seat.exception() is None:
        seat.result().release()
