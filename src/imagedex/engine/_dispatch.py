"""Which chunk runs on which worker, and what happens when a worker dies.

A worker has a few seats, so when it dies any of the chunks on them may be why. Who chose the chunk
for a seat is told and decides; a chunk that was submitted without one runs again alone on a
worker: when that one dies too, there is no doubt. Leaving the choice to Dask would not tell: its
``allowed-failures`` also counts against the innocent chunk that is on the same worker as a deadly
one.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from imagedex.core.errors import ChunkStopped, EngineError, ImagedexError, NoWorkers, WorkerLost
from imagedex.engine.interfaces import Seat, WorkerInfo, WorkerStatus

_ALLOWED_DEATHS = 1  # A chunk without a seat that was running when its worker died runs once more.
_ALLOWED_LOSSES = 5  # And with its host, as often: it could be what takes hosts down.
_REMEMBERED_GROUPS = 256  # Far more than there are jobs at once.
_STALL_CHECKS = 30  # Looks within the time after which a chunk is taken to hang.


class WorkerDied(Exception):
    """The worker went away while it ran a call, which may be why."""


class HostLost(WorkerDied):
    """The worker's host was lost, or turned out unfit: no call of its is why."""


@dataclass(slots=True, eq=False)
class Call:
    """A submitted chunk."""

    future: Future[Any]
    sealed: bytes
    name: str  # Of the chunk function, for messages.
    call_id: str = field(default_factory=lambda: uuid.uuid4().hex)  # Of a call for all times.
    deaths: int = 0  # Workers that died while they ran it.
    losses: int = 0  # Hosts that were lost while they ran it.
    images_done: int = 0  # As its worker said last,
    in_hand: tuple[str, ...] = ()  # with what it was about to work on,
    moved_at: float = 0.0  # and when that was, by the event loop's clock.
    is_stopped: bool = False
    is_stalled: bool = False


@dataclass(slots=True, eq=False)
class _Worker:
    worker_id: str
    host: str
    slot: str
    is_draining: bool = False
    is_dying: bool = False
    seats: list[_Seat] = field(default_factory=list)

    @property
    def info(self) -> WorkerInfo:
        # One step under the interpreter's lock, since other threads ask for it.
        seats = self.seats.copy()
        status = WorkerStatus.BUSY if seats else WorkerStatus.IDLE
        return WorkerInfo(
            worker_id=self.worker_id,
            host=self.host,
            status=WorkerStatus.DRAINING if self.is_draining else status,
            slot=self.slot,
            images_in_chunk=sum(s.call.images_done for s in seats if s.call is not None),
        )


@dataclass(slots=True, eq=False)
class _Seat:
    """A ``Seat``; all but ``worker`` and ``release`` is for the event loop's thread."""

    worker: WorkerInfo
    place: _Worker
    is_alone: bool
    loop: asyncio.AbstractEventLoop
    give_back: Callable[[_Seat], None]
    call: Call | None = None
    is_held: bool = True
    had_company: bool = True  # Another call was on the worker when it died.

    def release(self) -> None:
        """Give the seat back unused; without a loop there is nobody who would want it."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        if self.call is None:
            self.give_back(self)


@dataclass(slots=True, eq=False)
class Wish:
    """Somebody who waits for a seat: for a call that has none, or to choose one then."""

    future: Future[Seat]
    group: str | None = None  # Seats of one group are on one worker.
    alone: bool = False
    apart_from: str | None = None  # A host.
    call: Call | None = None


class Dispatcher:
    """Gives seats on the workers that have the least to do, in the order of asking.

    Seats of a group are on the worker that had its first one; who waits for that one lets others
    pass. For who wants a worker alone, one is kept from getting more.

    Every method must be called on the event loop's thread, except :meth:`snapshot`.

    Parameters
    ----------
    run
        Runs a call on the worker of that id and returns the answer; raises WorkerDied when the
        worker goes away.
    stop
        Tells the worker of that id that a call is to end.
    kill
        Ends a worker that hangs; ``remove_worker`` is called when it is gone.
    settle
        Takes a call's answer, or the reason why there is none. It must not block.
    calls_per_worker
        How many calls a worker gets at once.
    no_worker_seconds
        Who waits this long while no worker is connected is told so.
    stall_seconds
        A call from which nothing is heard for so long has its worker ended.
    why_no_worker
        Returns what is known of the workers that are missing.
    """

    def __init__(
        self,
        run: Callable[[str, Call], Awaitable[bytes]],
        settle: Callable[[Call, bytes | BaseException], None],
        *,
        stop: Callable[[str, str], Awaitable[None]],
        kill: Callable[[str], None],
        calls_per_worker: int,
        no_worker_seconds: float,
        stall_seconds: float,
        why_no_worker: Callable[[], str],
    ) -> None:
        self._run = run
        self._settle = settle
        self._stop = stop
        self._kill = kill
        self._calls_per_worker = calls_per_worker
        self._no_worker_seconds = no_worker_seconds
        self._stall_seconds = stall_seconds
        self._why_no_worker = why_no_worker
        self._waiting: list[Wish] = []
        self._connected: dict[str, _Worker] = {}
        self._running: dict[asyncio.Task[None], _Seat] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._homes: OrderedDict[str, str] = OrderedDict()  # The worker of each group.
        self._give_up: asyncio.TimerHandle | None = None
        self._stall_check: asyncio.TimerHandle | None = None
        self._closed: EngineError | None = None

    def submit(self, call: Call, seat: Seat | None = None) -> None:
        """Run a call on its seat, or as soon as a worker has room for it."""
        if self._closed is not None:
            self._settle_unstarted(call, self._closed)
        elif seat is None:
            self._waiting.append(Wish(future=Future(), call=call))
            self._assign()
        else:
            self._submit_to(self._own(seat), call)

    def reserve(self, wish: Wish) -> None:
        """Have a seat given as soon as there is one."""
        if self._closed is not None:
            _fail(wish.future, self._closed)
            return
        self._waiting.append(wish)
        loop = asyncio.get_running_loop()

        def forget(future: Future[Seat]) -> None:
            # What was kept for it is for others now.
            if future.cancelled():
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._assign)

        wish.future.add_done_callback(forget)
        self._assign()

    def stop(self, future: Future[Any]) -> None:
        """Have the call of this future end, if it has begun; one that has ended stays as it is."""
        for seat in self._running.values():
            call = seat.call
            if call is not None and call.future is future and not call.is_stopped:
                call.is_stopped = True
                self._pass_on_stop(seat.place.worker_id, call)

    def add_worker(self, worker_id: str, *, host: str, slot: str) -> None:
        """Count on a worker that has connected."""
        self._connected[worker_id] = _Worker(worker_id, host, slot)
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        self._assign()

    def remove_worker(self, worker_id: str) -> None:
        """Count no longer on a worker; ``run`` raises WorkerDied for the calls it may have."""
        worker = self._connected.pop(worker_id, None)
        if worker is not None:
            _note_company(worker)
        self._watch_for_workers()

    def set_draining(self, worker_id: str, *, is_draining: bool) -> None:
        """Give a worker no more seats, or give it some again; it keeps what it has."""
        worker = self._connected.get(worker_id)
        if worker is not None:
            worker.is_draining = is_draining
            self._assign()

    def note_progress(self, call_id: str, images_done: int, in_hand: tuple[str, ...]) -> None:
        """Take note of what a worker says of a call; of one that has ended it says nothing new."""
        for seat in self._running.values():
            call = seat.call
            if call is not None and call.call_id == call_id:
                call.images_done, call.in_hand = images_done, in_hand
                call.moved_at = asyncio.get_running_loop().time()

    def snapshot(self) -> list[WorkerInfo]:
        """Return the connected workers. May be called from any thread."""
        # dict.copy() is one step under the interpreter's lock.
        return [worker.info for worker in self._connected.copy().values()]

    def close(self, reason: EngineError) -> None:
        """End all calls and wishes, and all that come later, with this error."""
        self._closed = reason
        self._connected.clear()
        for timer in (self._give_up, self._stall_check):
            if timer is not None:
                timer.cancel()
        self._give_up = self._stall_check = None
        self._fail_waiting(reason)
        for task, seat in self._running.items():
            task.cancel()
            if seat.call is not None:
                self._settle(seat.call, reason)
        self._running.clear()
        for task in self._stopping:
            task.cancel()

    def _own(self, seat: Seat) -> _Seat:
        if not isinstance(seat, _Seat):
            raise TypeError(f"{seat!r} is no seat of this engine.")
        return seat

    def _submit_to(self, seat: _Seat, call: Call) -> None:
        if not seat.is_held or seat.call is not None:
            text = f"The seat for the chunk of {call.name} was used or released before; ask anew."
            self._settle_unstarted(call, EngineError(text))
        elif self._connected.get(seat.place.worker_id) is not seat.place:
            self._give_back(seat)
            text = f"Worker {seat.place.worker_id!r} was gone before the chunk reached it."
            self._settle_unstarted(call, _loss(seat, call, text, has_begun=False))
        elif _begin(call.future):
            self._begin_on(seat, call, self._run_seated)
        else:
            self._give_back(seat)

    def _assign(self) -> None:
        """Give out what seats there are."""
        self._waiting = [wish for wish in self._waiting if not _is_withdrawn(wish)]
        kept: set[str] = set()  # Workers that get nothing more before somebody has them alone.
        for wish in tuple(self._waiting):
            worker = self._worker_for(wish, kept)
            if worker is None:
                if wish.alone:
                    # Or new chunks would keep all workers taken.
                    kept.update(self._emptiest(wish, kept))
                continue
            self._waiting.remove(wish)
            if wish.group is not None:
                self._remember_home(wish.group, worker.worker_id)
            self._seat(wish, worker)
        self._watch_for_workers()

    def _seat(self, wish: Wish, worker: _Worker) -> None:
        future = wish.future if wish.call is None else wish.call.future
        if not _begin(future):
            return
        seat = _Seat(
            worker.info, worker, wish.alone, asyncio.get_running_loop(), give_back=self._give_back
        )
        worker.seats.append(seat)
        if wish.call is None:
            wish.future.set_result(seat)
        else:
            self._begin_on(seat, wish.call, self._run_unseated)

    def _begin_on(
        self, seat: _Seat, call: Call, run: Callable[[_Seat, Call], Awaitable[None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        seat.call = call
        call.images_done, call.in_hand, call.moved_at = 0, (), loop.time()

        async def run_and_assign() -> None:
            try:
                await run(seat, call)
            finally:
                self._give_back(seat)

        task = loop.create_task(run_and_assign())
        self._running[task] = seat
        task.add_done_callback(lambda task: self._running.pop(task, None))
        if self._stall_check is None:
            self._watch_for_stalls()

    def _worker_for(self, wish: Wish, kept: set[str]) -> _Worker | None:
        """Return the worker that has the least to do, among those that the wish may have."""
        home = self._home_of(wish)
        free = [
            worker
            for worker in self._candidates(wish, kept)
            if home in (None, worker.worker_id)
            and len(worker.seats) < (1 if wish.alone else self._calls_per_worker)
            and not any(seat.is_alone for seat in worker.seats)
        ]
        return min(free, key=lambda worker: len(worker.seats), default=None)

    def _emptiest(self, wish: Wish, kept: set[str]) -> list[str]:
        candidates = self._candidates(wish, kept)
        found = min(candidates, key=lambda worker: len(worker.seats), default=None)
        return [] if found is None else [found.worker_id]

    def _candidates(self, wish: Wish, kept: set[str]) -> list[_Worker]:
        able = [worker for worker in self._connected.values() if not worker.is_draining]
        elsewhere = [worker for worker in able if worker.host != wish.apart_from]
        return [worker for worker in elsewhere or able if worker.worker_id not in kept]

    def _home_of(self, wish: Wish) -> str | None:
        """Return the worker that somebody must wait for, if there is such a one."""
        if wish.group is None or wish.alone:
            return None
        home = self._connected.get(self._homes.get(wish.group, ""))
        return None if home is None or home.is_draining else home.worker_id

    def _remember_home(self, group: str, worker_id: str) -> None:
        self._homes[group] = worker_id
        self._homes.move_to_end(group)
        if len(self._homes) > _REMEMBERED_GROUPS:
            self._homes.popitem(last=False)

    def _give_back(self, seat: _Seat) -> None:
        seat.is_held = False
        if seat in seat.place.seats:
            seat.place.seats.remove(seat)
            self._assign()

    def _put_back(self, call: Call) -> None:
        """Have a call run again before all that have not begun; alone if it may be deadly."""
        returned = sum(
            1 for w in self._waiting if w.call is not None and (w.call.deaths or w.call.losses)
        )
        wish = Wish(future=Future(), alone=call.deaths > 0, call=call)
        self._waiting.insert(returned, wish)

    async def _run_seated(self, seat: _Seat, call: Call) -> None:
        try:
            answer = await self._answer(seat, call)
        except WorkerDied as death:
            call.deaths += 1
            text = f"Worker {seat.place.worker_id!r} died while it ran a chunk of {call.name}"
            # What became of the host says nothing of the chunk.
            has_begun = not isinstance(death, HostLost)
            loss = _loss(seat, call, f"{text}{_how(call)}: {death}", has_begun=has_begun)
            self._settle(call, _caused(loss, death))
        else:
            self._settle(call, answer)

    async def _run_unseated(self, seat: _Seat, call: Call) -> None:
        try:
            answer = await self._answer(seat, call)
        except WorkerDied as death:
            if isinstance(death, HostLost) and call.losses < _ALLOWED_LOSSES:
                call.losses += 1
            else:
                call.deaths += 1
            if call.is_stopped:
                text = f"The chunk of {call.name} was stopped, and its worker died."
                self._settle(call, _caused(ChunkStopped(text), death))
            elif call.deaths > _ALLOWED_DEATHS:
                self._settle(call, _deadly(seat, call, death))
            else:
                self._put_back(call)
        else:
            self._settle(call, answer)

    async def _answer(self, seat: _Seat, call: Call) -> bytes | BaseException:
        """Return the answer of the worker. Raises WorkerDied."""
        try:
            return await self._run(seat.place.worker_id, call)
        except WorkerDied:
            _note_company(seat.place)
            raise
        except Exception as error:
            # A fault of the engine itself: the caller must hear of it rather than wait for ever.
            failed = EngineError(
                f"The chunk of {call.name} could not be run on worker {seat.place.worker_id!r}: "
                f"{type(error).__name__}: {error}; running it again can help."
            )
            return _caused(failed, error)

    def _pass_on_stop(self, worker_id: str, call: Call) -> None:
        async def pass_on() -> None:
            # A worker that is just going away ends the call in its own way.
            with contextlib.suppress(WorkerDied):
                await self._stop(worker_id, call.call_id)

        task = asyncio.get_running_loop().create_task(pass_on())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    def _watch_for_stalls(self) -> None:
        """End the workers of calls that hang; look again as long as any call runs."""
        loop = asyncio.get_running_loop()
        self._stall_check = None
        for seat in self._running.values():
            call = seat.call
            if call is None or call.is_stalled:
                continue
            if loop.time() - call.moved_at >= self._stall_seconds:
                call.is_stalled = True
                self._kill(seat.place.worker_id)
        if self._running:
            pause = self._stall_seconds / _STALL_CHECKS
            self._stall_check = loop.call_later(pause, self._watch_for_stalls)

    def _watch_for_workers(self) -> None:
        if self._connected or not self._waiting or self._give_up is not None:
            return
        self._give_up = asyncio.get_running_loop().call_later(
            self._no_worker_seconds, self._give_up_waiting
        )

    def _give_up_waiting(self) -> None:
        self._give_up = None
        self._fail_waiting(
            NoWorkers(
                f"No worker has been connected for {self._no_worker_seconds:g} seconds, so the "
                f"chunk was given up: {self._why_no_worker()}"
            )
        )

    def _fail_waiting(self, reason: ImagedexError) -> None:
        waiting, self._waiting = self._waiting, []
        for wish in waiting:
            if wish.call is None:
                _fail(wish.future, reason)
            else:
                self._settle_unstarted(wish.call, reason)

    def _settle_unstarted(self, call: Call, reason: BaseException) -> None:
        if _begin(call.future):
            self._settle(call, reason)


def _is_withdrawn(wish: Wish) -> bool:
    future = wish.future if wish.call is None else wish.call.future
    return future.cancelled() and not _begin(future)


def _note_company(worker: _Worker) -> None:
    """Note which calls are on a worker that dies, once, since they end one after the other."""
    if not worker.is_dying:
        worker.is_dying = True
        busy = [seat for seat in worker.seats if seat.call is not None]
        for seat in busy:
            seat.had_company = len(busy) > 1


def _begin(future: Future[Any]) -> bool:
    """Make a future one that can no longer be cancelled; False when it has ended before."""
    if future.running():
        return True  # It comes back from a worker that died.
    if future.done() and not future.cancelled():
        return False
    return future.set_running_or_notify_cancel()


def _fail(future: Future[Any], reason: BaseException) -> None:
    # It may have been cancelled this moment.
    with contextlib.suppress(InvalidStateError):
        future.set_exception(reason)


def _caused(error: ImagedexError, cause: BaseException) -> ImagedexError:
    error.__cause__ = cause
    return error


def _how(call: Call) -> str:
    return ", which had made no progress for long" if call.is_stalled else ""


def _loss(seat: _Seat, call: Call, text: str, *, has_begun: bool = True) -> WorkerLost:
    return WorkerLost(
        text,
        worker_id=seat.place.worker_id,
        host=seat.place.host,
        has_begun=has_begun,
        # Of several chunks on a worker that hangs, it is the one that stands still.
        was_alone=has_begun and (call.is_stalled or not seat.had_company),
        images_done=call.images_done,
        in_hand=call.in_hand,
    )


def _deadly(seat: _Seat, call: Call, death: WorkerDied) -> ImagedexError:
    text = (
        f"{call.deaths} workers died while they ran the same chunk of {call.name}{_how(call)}, the "
        f"last one {seat.place.worker_id!r}; the chunk is given up. The workers' logs may tell "
        "why: too little memory, or a file that crashes a library."
    )
    return _caused(_loss(seat, call, text), death)
