"""The machine of the controller as a host of workers."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from imagedex.engine._host import EngineTicket
from imagedex.engine._supervisor import Supervisor, WorkerExit
from imagedex.engine._worker_config import WorkerConfig
from imagedex.engine._worker_log import WorkerLog
from imagedex.engine._worker_process import WorkerProcess
from imagedex.engine.hosts import LOCAL_NAME

_WORKER_MODULE = "imagedex.engine._dask_worker"


class LocalHost:
    """Worker processes beside the controller.

    Parameters
    ----------
    workers
        Number of worker processes.
    threads_per_worker
        Cores of one worker, at least 1.
    log_dir
        Gets a file ``worker-N.log`` for each worker.
    on_failing
        Is called on some thread when each of the workers has failed once.
    """

    def __init__(
        self,
        *,
        workers: int,
        threads_per_worker: int,
        log_dir: Path,
        on_failing: Callable[[], None],
    ) -> None:
        self.name = socket.gethostname()
        self._threads = threads_per_worker
        self._log_dir = log_dir
        self._on_failing = on_failing
        self._logs = [WorkerLog(log_dir / f"worker-{slot}.log") for slot in range(1, workers + 1)]
        self._last_exit: WorkerExit | None = None
        self._failed_slots: set[int] = set()
        # Before Dask puts its scratch directory on the module path of this process.
        # Made absolute and no more: resolve() would follow links that an installation relies on.
        self._module_path = [os.path.abspath(entry) for entry in sys.path if entry]  # noqa: PTH100
        self._supervisor: Supervisor | None = None

    @property
    def slots(self) -> int:
        """The number of worker processes."""
        return len(self._logs)

    @property
    def is_failing(self) -> bool:
        """Whether each of the workers has failed once."""
        return len(self._failed_slots) == self.slots

    def start(self, ticket: EngineTicket) -> None:
        """Start the workers; returns before they run."""
        self._supervisor = Supervisor(
            lambda _, worker_id, log: self._launch(worker_id, log, ticket),
            logs=self._logs,
            on_exit=self._worker_exited,
            name_of=_name_of,
        )
        self._supervisor.start()

    def expects(self, worker_id: str) -> bool:
        """Say whether the process of this worker runs."""
        return self._supervisor is not None and self._supervisor.runs(worker_id)

    def kill(self, worker_id: str) -> None:
        """End a worker that may no longer answer; another one takes its place."""
        if self._supervisor is not None:
            self._supervisor.kill(worker_id)

    def why_no_worker(self) -> str:
        """Return how the last worker ended, and where the logs are."""
        if self._last_exit is None:
            return f"the workers' logs are in {str(self._log_dir)!r}."
        last = self._last_exit
        return (
            f"worker {last.worker_id!r} {last.how}. Its log, below {str(self._log_dir)!r}, "
            f"ends with:\n{last.log_tail}"
        )

    def bound_logs(self) -> None:
        """Keep the logs of the workers within their size."""
        for log in self._logs:
            # On a full or vanished disk there is nothing to bound; the next round tries again.
            with contextlib.suppress(OSError):
                log.bound()

    def close(self, *, grace_seconds: float) -> None:
        """End all workers; those that still run after the grace are killed."""
        if self._supervisor is not None:
            self._supervisor.close(grace_seconds=grace_seconds)

    def _launch(self, worker_id: str, log: WorkerLog, ticket: EngineTicket) -> WorkerProcess:
        config = WorkerConfig(
            worker_id=worker_id,
            host=self.name,
            threads=self._threads,
            scheduler_address=ticket.address,
            scratch_directory=str(ticket.scratch),
            controller_pid=os.getpid(),
            credentials=ticket.credentials,
        )
        return WorkerProcess(config, module=_WORKER_MODULE, module_path=self._module_path, log=log)

    def _worker_exited(self, exit_: WorkerExit) -> None:
        self._last_exit = exit_
        self._failed_slots.add(exit_.slot)
        if self.is_failing:
            self._on_failing()


def _name_of(slot: int, life: int) -> str:
    return f"{LOCAL_NAME}-{slot}" if life == 1 else f"{LOCAL_NAME}-{slot}.{life}"
