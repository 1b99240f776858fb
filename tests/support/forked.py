"""Processes that begin with everything imported: forked by a server that has imported it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from multiprocessing import connection, reduction
from multiprocessing.context import ForkServerContext, ForkServerProcess


class ForkedProcess:
    """A process that runs ``target(*arguments)``, with what is used of ``subprocess.Popen``."""

    # The library reads an exit code in whichever thread looks first, also while it starts another
    # process, and a thread that comes second takes it for 255.
    _library = threading.Lock()

    def __init__(
        self, context: ForkServerContext, target: Callable[..., object], *arguments: object
    ) -> None:
        # Should a test forget a daemon, it ends with the tests.
        self._process: ForkServerProcess = context.Process(
            target=target, args=arguments, daemon=True
        )
        with self._library:
            self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int:
        code = self.poll()
        assert code is not None
        return code

    def poll(self) -> int | None:
        with self._library:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        connection.wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Passed:
    """A file descriptor on its way to a forked process, whose target gets its number there."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[object, tuple[object]]:
        return _received, (reduction.DupFd(self._descriptor),)


def _received(passed: object) -> int:
    descriptor: int = passed.detach()  # type: ignore[attr-defined] # A class that has no name.
    return descriptor
