"""Dask's scheduler and client, side by side on one event loop of the controller."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import Client, Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.metrics import time

from imagedex.engine._credentials import Credentials
from imagedex.engine._dask_chunk import PROGRESS_TOPIC, run_chunk, stop_chunk
from imagedex.engine._dask_tls import EngineSecurity
from imagedex.engine._dispatch import HostLost, WorkerDied
from imagedex.engine._liveness import Liveness

_CLOSE_SECONDS = 5.0
_LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


def address_here(listen_host: str) -> str:
    """Return the address, as in a URL, by which this machine reaches what it listens on itself."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen_host, listen_host)  # noqa: S104
    return f"[{address}]" if ":" in address else address


class _Comings(SchedulerPlugin):
    """Tells of the workers that connect and disconnect, and of what they say of their calls."""

    name = "imagedex-comings"

    def __init__(
        self,
        on_join: Callable[[str, str], None],
        on_leave: Callable[[str], None],
        on_progress: Callable[[str, int, tuple[str, ...]], None],
    ) -> None:
        self._on_join = on_join
        self._on_leave = on_leave
        self._on_progress = on_progress

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        self._on_join(worker, str(scheduler.workers[worker].name))

    # Dask's signature, so the scheduler is named though nothing is asked of it.
    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:  # noqa: ARG002
        self._on_leave(worker)

    def log_event(self, topic: str, msg: Any) -> None:
        if topic == PROGRESS_TOPIC:
            call_id, images, in_hand = msg
            self._on_progress(call_id, images, tuple(in_hand))


class _Departure(asyncio.Event):
    """Is set when a worker disconnects, or is counted on no more."""

    is_host_lost = False

    def reason(self, worker_id: str) -> WorkerDied:
        """Return what becomes of its calls."""
        kind = HostLost if self.is_host_lost else WorkerDied
        return kind(f"Worker {worker_id!r} went away during the call.")


class DaskHub:
    """Where workers connect, and through which calls reach them.

    It speaks only with who shows a leaf of the engine's authority: a connection to a Dask scheduler
    is as good as a shell. Everything is called on the event loop.

    Parameters
    ----------
    listen_host, listen_port
        Where it listens; port 0 takes any.
    silent_seconds
        A worker that was not heard for so long hangs.
    on_join
        Is told the id of a worker that has connected, on the event loop; when it answers False
        the worker is sent away.
    on_leave
        Is told the id of a worker that was counted on and has disconnected, on the event loop.
    on_silent
        Is told the id of a worker that hangs, on the event loop. It is counted on no more.
    on_progress
        Is told the id of a call, its images that are done and the paths of those in hand, on the
        event loop.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        scratch: Path,
        listen_host: str,
        listen_port: int,
        silent_seconds: float,
        on_join: Callable[[str], bool],
        on_leave: Callable[[str], None],
        on_silent: Callable[[str], None],
        on_progress: Callable[[str, int, tuple[str, ...]], None],
    ) -> None:
        self._security = EngineSecurity(credentials)
        self._listen_host = listen_host
        self._listen_port = listen_port
        self._liveness = Liveness(silent_seconds)
        self._scratch = scratch
        self._on_join = on_join
        self._on_leave = on_leave
        self._on_silent = on_silent
        self._on_progress = on_progress
        self._watching: asyncio.Task[None] | None = None
        self._kicks: set[asyncio.Task[None]] = set()
        self._scheduler: Scheduler | None = None
        self._client: Client | None = None
        self._addresses: dict[str, str] = {}  # By worker id.
        self._gone: dict[str, _Departure] = {}  # By worker id.

    async def start(self) -> int:
        """Listen, and return the port that workers connect to."""
        self._scheduler = await Scheduler(
            host=self._listen_host,
            port=self._listen_port,
            protocol="tls",
            security=self._security,
            dashboard=False,
            dashboard_address="127.0.0.1:0",
            local_directory=str(self._scratch),
            # Of Dask's extensions we use none, and "spans" keeps 4 kB of every chunk for ever.
            extensions={},
            plugins=(_Comings(self._joined, self._left, self._on_progress),),
        )
        # Dask opens an HTTP server without asking. It serves nothing here, so it need not listen.
        self._scheduler.http_server.stop()
        self._client = await Client(  # type: ignore[no-untyped-call] # Dask's.
            f"tls://{address_here(self._listen_host)}:{self._scheduler.port}",
            asynchronous=True,
            security=self._security,
            set_as_default=False,
            direct_to_workers=True,  # Answers come straight from the worker.
        )
        self._watching = asyncio.create_task(self._watch())
        return int(self._scheduler.port)

    async def run(self, worker_id: str, sealed: bytes, call_id: str) -> bytes:
        """Run a sealed call on this worker and return its answer. Raises WorkerDied."""
        address = self._addresses.get(worker_id)
        if address is None or self._client is None:
            raise WorkerDied(f"Worker {worker_id!r} is not connected.")
        departure = self._gone[worker_id]
        gone = asyncio.create_task(departure.wait())
        future = self._client.submit(
            run_chunk, sealed, call_id, key=f"chunk-{call_id}", workers=[address], pure=False
        )
        answer = asyncio.ensure_future(_result_of(future))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                # Without this a call whose answer was lost with the worker would wait for ever:
                # no other worker may run it.
                raise departure.reason(worker_id)
            return _answer_in(answer, worker_id)
        finally:
            gone.cancel()
            answer.cancel()
            # Dask forgets a result that nobody holds.
            future.release()  # type: ignore[no-untyped-call] # Dask's.

    async def stop_call(self, worker_id: str, call_id: str) -> None:
        """Tell a worker that a call is to end. Raises WorkerDied."""
        address = self._addresses.get(worker_id)
        if address is None or self._client is None:
            raise WorkerDied(f"Worker {worker_id!r} is not connected.")
        await self._client.run(stop_chunk, call_id, workers=[address], on_error="ignore")

    def kick(self, worker_id: str, *, is_host_lost: bool = False) -> None:
        """Count on a worker no more, whether it hears of it or not.

        Its calls end at once, with HostLost when it is its host that is lost.
        """
        if (departure := self._gone.get(worker_id)) is not None:
            departure.is_host_lost = is_host_lost
        address = self._addresses.get(worker_id)
        if address is None or self._scheduler is None:
            return
        kick = asyncio.create_task(self._remove(self._scheduler, address))
        self._kicks.add(kick)
        kick.add_done_callback(self._kicks.discard)

    async def close(self) -> None:
        """Disconnect everybody and stop listening, within seconds."""
        if self._watching is not None:
            self._watching.cancel()
        for part in (self._client, self._scheduler):
            if part is not None:
                # What is not closed by then ends with the event loop.
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(part.close(), _CLOSE_SECONDS)

    async def _watch(self) -> None:
        assert self._scheduler is not None  # noqa: S101 - It has been started.
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            heard_at = {
                worker_id: self._scheduler.workers[address].last_seen
                for worker_id, address in self._addresses.items()
                if address in self._scheduler.workers
            }
            for worker_id in self._liveness.silent(time(), heard_at):
                _log.warning("Worker %r does not answer any more and is ended.", worker_id)
                self._on_silent(worker_id)
                self.kick(worker_id)

    async def _remove(self, scheduler: Scheduler, address: str) -> None:
        await scheduler.remove_worker(address, stimulus_id="imagedex-kick")

    def _joined(self, address: str, worker_id: str) -> None:
        self._addresses[worker_id] = address
        self._gone[worker_id] = _Departure()
        if not self._on_join(worker_id):
            assert self._scheduler is not None  # noqa: S101 - It has just told of the worker.
            _log.warning(
                "Worker %r at %s was started by no host; it is sent away.", worker_id, address
            )
            del self._addresses[worker_id], self._gone[worker_id]
            self._scheduler.close_worker(address)

    def _left(self, address: str) -> None:
        for worker_id in [name for name, known in self._addresses.items() if known == address]:
            del self._addresses[worker_id]
            self._gone.pop(worker_id).set()
            self._on_leave(worker_id)


async def _result_of(future: Any) -> bytes:
    answer: bytes = await future
    return answer


def _answer_in(answer: asyncio.Future[bytes], worker_id: str) -> bytes:
    try:
        return answer.result()
    except (OSError, asyncio.CancelledError) as error:
        # The connection broke before the scheduler noticed; Dask cancels what it lost that way.
        raise WorkerDied(f"The answer of worker {worker_id!r} could not be fetched.") from error
