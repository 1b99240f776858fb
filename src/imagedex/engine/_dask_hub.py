"""Dask's scheduler and client, side by side on one event loop of the controller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import Client, Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

from imagedex.engine._certificate import Certificate
from imagedex.engine._dask_chunk import PROGRESS_TOPIC, run_chunk, stop_chunk
from imagedex.engine._dask_config import security_of
from imagedex.engine._dispatch import WorkerDied

_CLOSE_SECONDS = 5.0


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


class DaskHub:
    """Where workers connect, and through which calls reach them.

    Listens on the loopback interface only, and speaks only with who shows the certificate: a
    connection to a Dask scheduler is as good as a shell. Everything is called on the event loop.

    Parameters
    ----------
    on_join, on_leave
        Are told the ids of workers that connect and disconnect, on the event loop.
    on_progress
        Is told the id of a call, its images that are done and the paths of those in hand, on the
        event loop.
    """

    def __init__(
        self,
        certificate: Certificate,
        *,
        scratch: Path,
        on_join: Callable[[str], None],
        on_leave: Callable[[str], None],
        on_progress: Callable[[str, int, tuple[str, ...]], None],
    ) -> None:
        self._security = security_of(certificate)
        self._scratch = scratch
        self._on_join = on_join
        self._on_leave = on_leave
        self._on_progress = on_progress
        self._scheduler: Scheduler | None = None
        self._client: Client | None = None
        self._addresses: dict[str, str] = {}  # By worker id.
        self._gone: dict[str, asyncio.Event] = {}  # By worker id; set when it disconnects.

    async def start(self) -> str:
        """Listen, and return the address that workers connect to."""
        self._scheduler = await Scheduler(
            host="127.0.0.1",
            port=0,
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
            self._scheduler.address,
            asynchronous=True,
            security=self._security,
            set_as_default=False,
            direct_to_workers=True,  # Answers come straight from the worker.
        )
        return str(self._scheduler.address)

    async def run(self, worker_id: str, sealed: bytes, call_id: str) -> bytes:
        """Run a sealed call on this worker and return its answer. Raises WorkerDied."""
        address = self._addresses.get(worker_id)
        if address is None or self._client is None:
            raise WorkerDied(f"Worker {worker_id!r} is not connected.")
        gone = asyncio.create_task(self._gone[worker_id].wait())
        future = self._client.submit(
            run_chunk, sealed, call_id, key=f"chunk-{call_id}", workers=[address], pure=False
        )
        answer = asyncio.ensure_future(_result_of(future))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                # Without this a call whose answer was lost with the worker would wait for ever:
                # no other worker may run it.
                raise WorkerDied(f"Worker {worker_id!r} went away during the call.")
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

    async def close(self) -> None:
        """Disconnect everybody and stop listening, within seconds."""
        for part in (self._client, self._scheduler):
            if part is not None:
                # What is not closed by then ends with the event loop.
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(part.close(), _CLOSE_SECONDS)

    def _joined(self, address: str, worker_id: str) -> None:
        self._addresses[worker_id] = address
        self._gone[worker_id] = asyncio.Event()
        self._on_join(worker_id)

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
