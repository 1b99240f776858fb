"""What runs on a host of workers (``python -P -m imagedex.engine._agent``), started over SSH.

It starts the workers that the controller asks for, on its standard input, and replaces those that
end. It hears a ping every two seconds: when they stay away, or its input ends, the controller has
lost this host, so it ends the workers and itself. It imports neither Dask nor NumPy, to be
there at once.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from imagedex.engine._agent_lock import AgentHeld, sole_agent
from imagedex.engine._agent_wire import (
    DEADMAN_SECONDS,
    Begin,
    Exit,
    Hello,
    Lines,
    WireError,
    line_of,
    read_line,
)
from imagedex.engine._release import own_release
from imagedex.engine._scratch import scratch_directory
from imagedex.engine._supervisor import Supervisor, WorkerExit
from imagedex.engine._worker_config import WorkerConfig
from imagedex.engine._worker_log import WorkerLog
from imagedex.engine._worker_process import WorkerProcess

_WORKER_MODULE = "imagedex.engine._dask_worker"
_GRACE_SECONDS = 1.0  # For workers to close their resources before they are killed.
_REPLACED_SECONDS = 20.0  # An older agent that is cut off needs its deadman to end.
_LOG_CHECK_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_MAX_UNSENT = 1000

_log = logging.getLogger("imagedex.agent")


class _Ended(Exception):
    """The agent is to end; the text says why."""


class _Inbox:
    """What the controller says, as it comes. Raises _Ended when it says nothing any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines = Lines()
        self._heard_at = time.monotonic()

    def messages(self) -> Iterator[tuple[str, Any] | None]:
        """Yield what is said; None each second in which nothing is."""
        while True:
            ready, _, _ = select.select([self._descriptor], [], [], _LOOK_SECONDS)
            if not ready:
                if time.monotonic() - self._heard_at > DEADMAN_SECONDS:
                    raise _Ended(f"nothing came from the controller for {DEADMAN_SECONDS:g} s")
                yield None
                continue
            data = os.read(self._descriptor, 1 << 16)
            if not data:
                raise _Ended("the connection to the controller ended")
            self._heard_at = time.monotonic()
            for line in self._lines.feed(data):
                yield read_line(line)


class _Outbox:
    """Says things to the controller, without ever waiting for it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unsent: queue.Queue[bytes | None] = queue.Queue(_MAX_UNSENT)
        self._thread = threading.Thread(target=self._send, name="outbox", daemon=True)
        self._thread.start()

    def say(self, kind: str, content: Any) -> None:
        """Say something soon. What a cut connection does not take is dropped in the end."""
        with suppress(queue.Full):
            self._unsent.put_nowait(line_of(kind, content))

    def close(self) -> None:
        """Give what was said a moment to leave."""
        with suppress(queue.Full):
            self._unsent.put_nowait(None)
            self._thread.join(_GRACE_SECONDS)

    def _send(self) -> None:
        with suppress(OSError):  # The connection is gone; the inbox notices as well.
            while (line := self._unsent.get()) is not None:
                while line:
                    line = line[os.write(self._descriptor, line) :]


class _Workers:
    """The workers of one agent and their logs."""

    def __init__(self, begin: Begin, *, state: Path, scratch: Path, outbox: _Outbox) -> None:
        self._begin = begin
        self._scratch = scratch
        self._outbox = outbox
        self._slots = len(begin.gpus) or begin.workers
        cores = len(os.sched_getaffinity(0))
        self._threads = begin.threads or max(1, cores // self._slots)
        # Made absolute and no more: resolve() would follow links that an installation relies on.
        self._module_path = [os.path.abspath(entry) for entry in sys.path if entry]  # noqa: PTH100
        self._logs = [WorkerLog(state / f"worker-{slot}.log") for slot in range(1, self._slots + 1)]
        self._bounded_at = time.monotonic()
        self.supervisor = Supervisor(
            self._launch, logs=self._logs, on_exit=self._exited, name_of=self._name_of
        )

    def bound_logs(self) -> None:
        """Keep the logs within their size, now and then."""
        if time.monotonic() - self._bounded_at > _LOG_CHECK_SECONDS:
            self._bounded_at = time.monotonic()
            for log in self._logs:
                with suppress(OSError):
                    log.bound()

    def _name_of(self, slot: int, life: int) -> str:
        first = f"{self._begin.host}-{slot}"
        return (
            first if (self._begin.start, life) == (1, 1) else f"{first}.{self._begin.start}.{life}"
        )

    def _launch(self, slot: int, worker_id: str, log: WorkerLog) -> WorkerProcess:
        config = WorkerConfig(
            worker_id=worker_id,
            host=self._begin.host,
            threads=self._threads,
            scheduler_address=self._begin.scheduler_address,
            scratch_directory=str(self._scratch),
            controller_pid=os.getpid(),
            credentials=self._begin.credentials,
            is_remote=True,
            ports=self._begin.ports,
            paths=self._begin.paths,
            gpu=self._begin.gpus[slot - 1] if self._begin.gpus else None,
        )
        return WorkerProcess(config, module=_WORKER_MODULE, module_path=self._module_path, log=log)

    def _exited(self, exit_: WorkerExit) -> None:
        told = Exit(exit_.worker_id, exit_.slot, exit_.how, exit_.log_tail)
        self._outbox.say("exit", told.to_fields())


def main() -> int:
    """Serve a controller until it is gone; returns the exit status."""
    signal.signal(signal.SIGTERM, _end_on_signal)
    signal.signal(signal.SIGHUP, _end_on_signal)
    outbox = _Outbox(os.dup(1))
    # Whatever a library prints must not get between the lines.
    os.dup2(2, 1)
    try:
        hello = Hello(own_release(), len(os.sched_getaffinity(0)), os.getpid())
        outbox.say("hello", hello.to_fields())
        messages = _Inbox(0).messages()
        begin = _wait_for_begin(messages, outbox)
        state = _state_directory(begin)
        with (
            sole_agent(state / "lock", wait_seconds=_REPLACED_SECONDS),
            scratch_directory() as scratch,
        ):
            _open_log(state / "agent.log")
            _serve(begin, messages, outbox, state=state, scratch=scratch)
    except _Ended as ended:
        _log.info("The agent ends: %s.", ended)
        return 0
    except (AgentHeld, OSError, WireError) as error:
        outbox.say("failed", f"{error}")
        _log.error("The agent ends: %s.", error)
        return 1
    finally:
        outbox.close()
    return 0


def _serve(
    begin: Begin,
    messages: Iterator[tuple[str, Any] | None],
    outbox: _Outbox,
    *,
    state: Path,
    scratch: Path,
) -> None:
    workers = _Workers(begin, state=state, scratch=scratch, outbox=outbox)
    workers.supervisor.start()
    _log.info("Agent of %s, process %d, serves a controller.", begin.host, os.getpid())
    outbox.say("began", {"host_name": socket.gethostname(), "log_directory": str(state)})
    try:
        for message in messages:
            workers.bound_logs()
            if message is None:
                continue
            kind, content = message
            if kind == "ping":
                outbox.say("pong", content)
            elif kind == "kill":
                workers.supervisor.kill(str(content))
            elif kind == "end":
                raise _Ended("the controller said so")
            else:
                raise WireError(f"{kind!r} is not known here")
    finally:
        workers.supervisor.close(grace_seconds=_GRACE_SECONDS)


def _wait_for_begin(messages: Iterator[tuple[str, Any] | None], outbox: _Outbox) -> Begin:
    for message in messages:
        if message is None:
            continue
        kind, content = message
        if kind == "begin":
            return Begin.from_fields(content)
        if kind == "end":
            raise _Ended("the controller said so")
        if kind != "ping":
            raise WireError(f"{kind!r} came before 'begin'")
        outbox.say("pong", content)
    raise AssertionError("messages never end")


def _state_directory(begin: Begin) -> Path:
    """Return where the logs and the lock of this controller's agent lie, made if need be."""
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    state = home / "imagedex" / f"{begin.host}-{begin.installation}"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return state


def _open_log(path: Path) -> None:
    """Have what this process writes go to a file: SSH carries the lines of the wire alone."""
    with WorkerLog(path).open() as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def _end_on_signal(number: int, _frame: object) -> None:
    raise _Ended(f"signal {number}")


if __name__ == "__main__":
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    status = main()
    logging.shutdown()
    # Not sys.exit(): that waits for threads, and one may wait for a process that cannot end.
    os._exit(status)
