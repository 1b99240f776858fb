"""Which chunk runs on which worker, and what happens when a worker dies.

A worker has a few chunks at a time, so when it dies any of them may be why. Each of them runs
again alone on a worker: when that one dies too, there is no doubt. Leaving the choice to Dask
would not tell: its ``allowed-failures`` also counts against the innocent chunk that is on the
same worker as a deadly one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from imagedex.core.errors import EngineError
from imagedex.engine.interfaces import WorkerStatus

_ALLOWED_DEATHS = 1  # A chunk that was running when its worker died is run once more.
_REMEMBERED_GROUPS = 256  # Far more than there are jobs at once.


class WorkerDied(Exception):
    """The worker went away while it ran a call."""


@dataclass(slots=True, eq=False)
class Call:
    """A submitted chunk."""

    future: Future[Any]
    sealed: bytes
    name: str  # Of the chunk function, for messages.
    group: str | None = None  # Those of one group run on one worker.
    deaths: int = 0  # Workers that died while they ran it.


class Dispatcher:
    """Hands calls to the workers that have the least, in the order of their submission.

    Calls of a group go to the worker that had its first one; while that is busy, those behind
    them go past.

    Every method must be called on the event loop's thread, except :meth:`snapshot`.

    Parameters
    ----------
    run
        Runs a sealed call on the worker of that id and returns the answer; raises WorkerDied
        when the worker goes away.
    settle
        Takes a call's answer, or the reason why there is none. It must not block.
    calls_per_worker
        How many calls a worker gets at once.
    no_worker_seconds
        Calls that wait this long while no worker is connected are given up.
    why_no_worker
        Returns what is known of the workers that are missing.
    """

    def __init__(
        self,
        run: Callable[[str, bytes], Awaitable[bytes]],
        settle: Callable[[Call, bytes | BaseException], None],
        *,
        calls_per_worker: int,
        no_worker_seconds: float,
        why_no_worker: Callable[[], str],
    ) -> None:
        self._run = run
        self._settle = settle
        self._calls_per_worker = calls_per_worker
        self._no_worker_seconds = no_worker_seconds
        self._why_no_worker = why_no_worker
        self._waiting: deque[Call] = deque()
        self._connected: dict[str, list[Call]] = {}  # What each worker runs.
        self._running: dict[asyncio.Task[None], Call] = {}
        self._homes: OrderedDict[str, str] = OrderedDict()  # The worker of each group.
        self._give_up: asyncio.TimerHandle | None = None
        self._closed: EngineError | None = None

    def submit(self, call: Call) -> None:
        """Run a call as soon as a worker has room for it."""
        if self._closed is not None:
            self._settle_unstarted(call, self._closed)
            return
        self._waiting.append(call)
        self._assign()

    def add_worker(self, worker_id: str) -> None:
        """Count on a worker that has connected."""
        self._connected[worker_id] = []
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        self._assign()

    def remove_worker(self, worker_id: str) -> None:
        """Count no longer on a worker; ``run`` raises WorkerDied for the call it may have."""
        self._connected.pop(worker_id, None)
        self._watch_for_workers()

    def snapshot(self) -> list[tuple[str, WorkerStatus]]:
        """Return the connected workers. May be called from any thread."""
        # dict.copy() is one step under the interpreter's lock.
        return [
            (worker_id, WorkerStatus.BUSY if calls else WorkerStatus.IDLE)
            for worker_id, calls in self._connected.copy().items()
        ]

    def close(self, reason: EngineError) -> None:
        """End all calls, and all that are submitted later, with this error."""
        self._closed = reason
        self._connected.clear()
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None
        self._fail_waiting(reason)
        for task, call in self._running.items():
            task.cancel()
            self._settle(call, reason)
        self._running.clear()

    def _assign(self) -> None:
        for call in tuple(self._waiting):
            worker_id = self._worker_for(call)
            if worker_id is None:
                if self._home_of(call) is not None:
                    continue
                # A call that has to wait for a worker of its own holds up those behind it, or new
                # ones would keep all workers taken.
                break
            self._waiting.remove(call)
            if not _begin(call.future):
                continue
            if call.group is not None:
                self._remember_home(call.group, worker_id)
            self._connected[worker_id].append(call)
            task = asyncio.get_running_loop().create_task(self._run_on(worker_id, call))
            self._running[task] = call
            task.add_done_callback(lambda task: self._running.pop(task, None))
        self._watch_for_workers()

    def _worker_for(self, call: Call) -> str | None:
        """Return the worker that has the least to do, among those that may take the call."""
        home = self._home_of(call)
        room = [
            (len(calls), worker_id)
            for worker_id, calls in self._connected.items()
            if home in (None, worker_id)
            and (
                not calls
                or (
                    len(calls) < self._calls_per_worker
                    and not call.deaths
                    and not any(other.deaths for other in calls)
                )
            )
        ]
        return min(room, key=lambda pair: pair[0])[1] if room else None

    def _home_of(self, call: Call) -> str | None:
        """Return the worker that a call must wait for, if there is such a one."""
        if call.group is None or call.deaths:
            return None
        home = self._homes.get(call.group)
        return home if home in self._connected else None

    def _remember_home(self, group: str, worker_id: str) -> None:
        self._homes[group] = worker_id
        self._homes.move_to_end(group)
        if len(self._homes) > _REMEMBERED_GROUPS:
            self._homes.popitem(last=False)

    def _put_back(self, call: Call) -> None:
        """Have a call run again before all that have not begun."""
        returned = sum(1 for other in self._waiting if other.deaths)
        self._waiting.insert(returned, call)

    async def _run_on(self, worker_id: str, call: Call) -> None:
        try:
            answer = await self._run(worker_id, call.sealed)
        except WorkerDied as death:
            call.deaths += 1
            if call.deaths > _ALLOWED_DEATHS:
                self._settle(call, _deadly(call, worker_id, death))
            else:
                self._put_back(call)
        except Exception as error:
            # A fault of the engine itself: the caller must hear of it rather than wait for ever.
            failed = EngineError(
                f"The chunk of {call.name} could not be run on worker {worker_id!r}: "
                f"{type(error).__name__}: {error}; running it again can help."
            )
            failed.__cause__ = error
            self._settle(call, failed)
        else:
            self._settle(call, answer)
        if call in (calls := self._connected.get(worker_id, [])):
            calls.remove(call)
        self._assign()

    def _watch_for_workers(self) -> None:
        if self._connected or not self._waiting or self._give_up is not None:
            return
        self._give_up = asyncio.get_running_loop().call_later(
            self._no_worker_seconds, self._give_up_waiting
        )

    def _give_up_waiting(self) -> None:
        self._give_up = None
        self._fail_waiting(
            EngineError(
                f"No worker has been connected for {self._no_worker_seconds:g} seconds, so the "
                f"chunk was given up: {self._why_no_worker()}"
            )
        )

    def _fail_waiting(self, reason: EngineError) -> None:
        while self._waiting:
            self._settle_unstarted(self._waiting.popleft(), reason)

    def _settle_unstarted(self, call: Call, reason: EngineError) -> None:
        if _begin(call.future):
            self._settle(call, reason)


def _begin(future: Future[Any]) -> bool:
    """Make a future one that can no longer be cancelled; False when it has ended before."""
    if future.running():
        return True  # It comes back from a worker that died.
    if future.done() and not future.cancelled():
        return False
    return future.set_running_or_notify_cancel()


def _deadly(call: Call, worker_id: str, death: WorkerDied) -> EngineError:
    error = EngineError(
        f"{call.deaths} workers died while they ran the same chunk of {call.name}, the last one "
        f"{worker_id!r}; the chunk is given up. The workers' logs may tell why: too little memory, "
        "or a file that crashes a library."
    )
    error.__cause__ = death
    return error
