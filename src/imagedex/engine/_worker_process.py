"""One worker process of this machine: how it is started, watched and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

from imagedex.engine._worker_config import WorkerConfig
from imagedex.engine._worker_log import WorkerLog

# What hold secrets, or belong to the service alone: the settings, libpq's, systemd's.
_NOT_PASSED_ON = ("IMAGEDEX_", "PG", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_")


class WorkerProcess:
    """A running worker, in a process group of its own with whatever processes it starts.

    The group keeps the terminal's Ctrl-C from the workers, and lets all of a dead worker's
    children be ended with it.

    Parameters
    ----------
    config
        Is handed to the worker on its standard input.
    module
        Is run as the worker's main module.
    module_path
        Directories that the worker imports from.
    log
        Gets what the worker writes to standard output and error.

    Raises OSError when the process cannot be started or the log cannot be written.
    """

    def __init__(
        self, config: WorkerConfig, *, module: str, module_path: list[str], log: WorkerLog
    ) -> None:
        self.worker_id = config.worker_id
        threads = str(config.threads)
        # Settings hold keys and database passwords, which whatever a worker runs or leaves in a
        # core dump would pass on. A worker gets what it needs from its config and its chunks.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)
        } | {
            "PYTHONPATH": os.pathsep.join(module_path),
            "PYTHONFAULTHANDLER": "1",  # A crash in a library leaves its stack in the log.
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        if config.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(config.gpu)
        self._signalling = threading.Lock()
        self._reaped = False
        with log.open() as output:
            # -P keeps the working directory off the module path: nobody may slip modules to
            # the workers by leaving them where the server happens to be started.
            self._popen = subprocess.Popen(  # noqa: S603 - Nothing of it comes from outside.
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,
            )
        assert self._popen.stdin is not None  # noqa: S101 - For the type checker.
        self._stdin = self._popen.stdin
        # A worker that died at once reads nothing; wait() tells how it ended.
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(config.to_line())
            self._stdin.flush()

    @property
    def pid(self) -> int:
        """The process id, which is also the id of the process group."""
        return self._popen.pid

    def ask_to_end(self) -> None:
        """Let the worker end by itself: it closes its resources when its input ends."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()

    def kill(self) -> None:
        """End the worker and all that it started, now. Does nothing when it has ended."""
        with self._signalling:
            if not self._reaped:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> str:
        """Wait until the worker has ended, end what it left behind, and say how it ended."""
        # The process is not reaped yet, so its id, and thereby that of its group, can be given
        # to nobody else until kill() is done.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.kill()
        with self._signalling:
            status = self._popen.wait()
            self._reaped = True
        self.ask_to_end()
        if status < 0:
            return f"was killed by signal {-status} ({signal.Signals(-status).name})"
        return f"ended with status {status}"
