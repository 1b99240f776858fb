"""Keeps a number of worker processes running."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from imagedex.engine._worker_log import WorkerLog
from imagedex.engine._worker_process import WorkerProcess

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 15.0
_STEADY_SECONDS = 30.0  # A worker that lived this long did not fail at its start.

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker ended that nobody had asked to end."""

    worker_id: str
    slot: int  # From 1.
    how: str  # "was killed by signal 9 (SIGKILL)"
    log_tail: str


class Supervisor:
    """Starts a worker in each slot and another one whenever it ends.

    A slot whose workers end soon after their start pauses before the next, up to 15 seconds.

    Parameters
    ----------
    launch
        Starts the worker of this slot and id, with this log; may raise OSError.
    logs
        A log for each slot.
    on_exit
        Is told of each worker that ended unasked, on the slot's own thread.
    name_of
        Returns the id of a worker by its slot and life, both from 1; no two may be the same.
    """

    def __init__(
        self,
        launch: Callable[[int, str, WorkerLog], WorkerProcess],
        *,
        logs: list[WorkerLog],
        on_exit: Callable[[WorkerExit], None],
        name_of: Callable[[int, int], str],
    ) -> None:
        self._launch = launch
        self._name_of = name_of
        self._on_exit = on_exit
        self._logs = logs
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._processes: dict[str, WorkerProcess] = {}
        # Each slot has a thread that starts its workers and outlives them: the kernel ends a
        # worker when the thread that started it ends (see _dask_worker), not just the process.
        self._threads = [
            threading.Thread(
                target=self._keep_running, args=(number, log), name=f"worker-{number}", daemon=True
            )
            for number, log in enumerate(logs, start=1)
        ]

    def start(self) -> None:
        """Start the workers; returns before they run."""
        for thread in self._threads:
            thread.start()

    def runs(self, worker_id: str) -> bool:
        """Say whether the process of this worker runs."""
        # Without the lock, which is held while a process is started: an event loop asks.
        return worker_id in self._processes

    def kill(self, worker_id: str) -> None:
        """End a worker that may no longer answer; another one takes its slot."""
        with self._lock:
            process = self._processes.get(worker_id)
        if process is not None:
            process.kill()

    def close(self, *, grace_seconds: float) -> None:
        """End all workers; those that still run after the grace are killed."""
        with self._lock:
            self._closing.set()
            processes = list(self._processes.values())
        for process in processes:
            process.ask_to_end()
        deadline = time.monotonic() + grace_seconds
        started = [thread for thread in self._threads if thread.ident is not None]
        for thread in started:
            thread.join(max(0.0, deadline - time.monotonic()))
        for process in processes:
            process.kill()
        for thread in started:
            # A killed process lingers only in uninterruptible I/O (a dead NFS server); its
            # thread is a daemon, so it holds nobody up.
            thread.join(grace_seconds)

    def _keep_running(self, number: int, log: WorkerLog) -> None:
        start, pause = 0, _FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            start += 1
            worker_id = self._name_of(number, start)
            began = time.monotonic()
            how = self._run_once(number, worker_id, log)
            if self._closing.is_set():
                return
            _log.warning("Worker %s %s; its log is %s.", worker_id, how, log.path)
            self._on_exit(
                WorkerExit(worker_id=worker_id, slot=number, how=how, log_tail=log.tail())
            )
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            self._closing.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _run_once(self, number: int, worker_id: str, log: WorkerLog) -> str:
        # The lock keeps close() from missing a worker that is just being started.
        with self._lock:
            if self._closing.is_set():
                return "was not started"
            try:
                process = self._launch(number, worker_id, log)
            except OSError as error:
                return f"could not be started: {error}"
            self._processes[worker_id] = process
        try:
            return process.wait()
        finally:
            with self._lock:
                del self._processes[worker_id]
