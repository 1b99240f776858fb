"""The main module of a worker process (``python -m imagedex.engine._dask_worker``).

It is started by the engine only, which hands it a WorkerConfig on standard input and keeps that
input open: when it ends, so does the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
from urllib.parse import urlsplit

from imagedex.core.paths import PathMapping
from imagedex.engine._worker_config import CHUNKS_AT_ONCE, WorkerConfig

_NICENESS = 10
_OOM_SCORE = "500"  # Of 1000; 0 is the usual.
_PR_SET_PDEATHSIG = 1  # From <linux/prctl.h>.
_CONNECT_SECONDS = 60
_END_SECONDS = 2.0

_log = logging.getLogger("imagedex.worker")


def main() -> int:
    """Run a worker until it is told to end; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the controller.
    _give_way()
    line = sys.stdin.buffer.readline()
    if not line:
        return 1  # The controller is gone before it said anything.
    config = WorkerConfig.from_line(line)
    _die_with(config.controller_pid)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    faulthandler.register(signal.SIGUSR1)  # Writes all stacks into the log: what does it do?
    return asyncio.run(_serve(config))


def _give_way() -> None:
    """Let the API's processes go first: a query must not wait for indexing."""
    os.nice(_NICENESS)
    # Batch scheduling preempts others less often. Some sandboxes forbid it, and a container
    # may not let a process volunteer for the kernel's out-of-memory killer; both are only help.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(_OOM_SCORE)


def _die_with(controller_pid: int) -> None:
    """Have the kernel end this process when the controller ends, be it by ``kill -9``.

    The end of standard input tells the same, but a worker that hangs in a library while it
    holds the interpreter's lock would never see it. See prctl(2), PR_SET_PDEATHSIG.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != controller_pid:
        # It ended before the kernel knew of our wish.
        os._exit(1)


def _detach_input() -> int:
    """Return the controller's pipe under a number that no child inherits; input is now empty."""
    pipe = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return pipe


def _address_towards(scheduler_address: str) -> str:
    """Return this machine's own address on the way to the scheduler: loopback, if it is here."""
    place = urlsplit(scheduler_address)
    (family, kind, _, _, address), *_ = socket.getaddrinfo(
        place.hostname, place.port, type=socket.SOCK_DGRAM
    )
    # Nothing is sent: to connect such a socket is to choose its route.
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


async def _serve(config: WorkerConfig) -> int:
    # Dask is imported this late so that its helper threads, too, inherit the low priority.
    from distributed import Worker

    from imagedex.engine._dask_chunk import ContextPlugin
    from imagedex.engine._dask_config import configure_dask
    from imagedex.engine._dask_tls import EngineSecurity

    configure_dask()
    plugin = ContextPlugin(
        worker_id=config.worker_id,
        host=config.host,
        threads=config.threads,
        is_remote=config.is_remote,
        paths=PathMapping(config.paths),
    )
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    pipe = _detach_input()

    def wait_for_the_end() -> None:
        os.read(pipe, 1)  # Nothing is ever written: it returns when the other end is closed.
        # Should the event loop hang as well, this ends the process all the same.
        threading.Timer(2 * _END_SECONDS, os._exit, args=(1,)).start()
        loop.call_soon_threadsafe(end.set)

    threading.Thread(target=wait_for_the_end, name="controller-watch", daemon=True).start()

    worker = await Worker(
        config.scheduler_address,
        name=config.worker_id,
        nthreads=CHUNKS_AT_ONCE,  # More threads are the business of what a chunk calls.
        host=_address_towards(config.scheduler_address),
        port=config.ports,
        memory_limit=0,
        security=EngineSecurity(config.credentials),
        local_directory=config.scratch_directory,
        dashboard_address="127.0.0.1:0",
        extensions={},
        death_timeout=_CONNECT_SECONDS,
        plugins=(plugin,),
    )
    # Dask opens an HTTP server without asking. It serves nothing here, so it need not listen.
    worker.http_server.stop()
    _log.info("Worker %s takes chunks.", config.worker_id)

    ended = asyncio.create_task(worker.finished())
    asked = asyncio.create_task(end.wait())
    await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
    if asked.done():
        await worker.close(
            timeout=_END_SECONDS, executor_wait=False, nanny=False, reason="engine-close"
        )
    _log.info("Worker %s ends.", config.worker_id)
    return 0 if asked.done() else 1


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # Not sys.exit(): that waits for threads, and a chunk that hangs in one must not keep a
    # worker alive whose resources are closed.
    os._exit(status)
