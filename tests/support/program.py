"""The ``imagedex`` program in processes of its own.

``start_program`` starts them as a shell does, or, within ``ready_programs``, forks each from a
process that has imported everything: then a start costs a twentieth. What such a process does is
the same, down to its signals, exit code and ``kill -9``; what a fresh interpreter must find and
import is left to the tests that ask for a fresh one.
"""

from __future__ import annotations

import atexit
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self, TextIO

from support.forked import ForkedProcess, Passed

COMMAND = (sys.executable, "-m", "imagedex.cli")

IMPORTED = (
    "imagedex.cli.connection",
    "imagedex.cli.in_process",
    "imagedex.cli.server",
    "imagedex.database.migrating",
    "imagedex.engine._dask_session",
    "imagedex.ingest._decoder_process",
    "imagedex.testing.colour_model",
)
_TESTS = str(Path(__file__).resolve().parents[1])


class RunningProgram(Protocol):
    """What is used of ``subprocess.Popen[str]``, and means the same."""

    @property
    def pid(self) -> int: ...

    @property
    def stdout(self) -> IO[str] | None: ...

    @property
    def stderr(self) -> IO[str] | None: ...

    @property
    def returncode(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]: ...

    def send_signal(self, sig: int) -> None: ...

    def kill(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class _Ready:
    context: ForkServerContext | None = None


@contextmanager
def ready_programs(context: ForkServerContext) -> Iterator[None]:
    """Fork programs from this context's server, which has imported ``IMPORTED``."""
    _Ready.context = context
    try:
        yield
    finally:
        _Ready.context = None


def start_program(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    output: IO[bytes] | None = None,
    is_fresh: bool = False,
) -> RunningProgram:
    """Start it in a session of its own, with nothing to read, and return at once.

    What it writes goes to ``output``, or else to the pipes ``stdout`` and ``stderr``.
    """
    # A fork has imported what the path of the tests leads to.
    has_own_path = environment.get("PYTHONPATH") != os.environ.get("PYTHONPATH")
    if _Ready.context is not None and not is_fresh and not has_own_path:
        return _ForkedProgram(_Ready.context, arguments, environment, output)
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output or subprocess.PIPE,
        stderr=output or subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


class _ForkedProgram(ForkedProcess):
    """The program as a process that was forked."""

    def __init__(
        self,
        context: ForkServerContext,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        output: IO[bytes] | None,
    ) -> None:
        self.stdout: TextIO | None = None
        self.stderr: TextIO | None = None
        if output is None:
            self.stdout, out = _pipe()
            self.stderr, err = _pipe()
        else:
            out = err = output.fileno()
        work = (list(arguments), dict(environment), str(Path.cwd()), Passed(out), Passed(err))
        try:
            super().__init__(context, _run_program, *work)
        finally:
            if output is None:
                os.close(out)
                os.close(err)

    def communicate(self, *, timeout: float | None = None) -> tuple[str, str]:
        # Both at once: a full pipe that nobody reads would stop the program.
        with ThreadPoolExecutor(2) as readers:
            told = [readers.submit(_read, stream) for stream in (self.stdout, self.stderr)]
            try:
                texts = [reading.result(timeout) for reading in told]
            except TimeoutError:
                self.kill()  # So that the readers come to an end.
                raise subprocess.TimeoutExpired("imagedex", timeout or 0) from None
        self.wait(timeout)
        return texts[0], texts[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


def _pipe() -> tuple[TextIO, int]:
    ours, theirs = os.pipe()
    return open(ours, encoding="utf-8", errors="backslashreplace"), theirs


def _read(stream: TextIO | None) -> str:
    if stream is None or stream.closed:
        return ""
    with stream:
        return stream.read()


def _run_program(
    arguments: list[str], environment: dict[str, str], directory: str, out: int, err: int
) -> None:
    """Be the process that a shell would have started."""
    os.setsid()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["imagedex", *arguments]
    sys.path[:] = [entry for entry in sys.path if entry != _TESTS]
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, descriptor in ((1, out), (2, err)):
        os.dup2(descriptor, number)
    for descriptor in {out, err}:
        os.close(descriptor)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = io.TextIOWrapper(_writer(1))
    sys.stderr = io.TextIOWrapper(_writer(2), errors="backslashreplace", line_buffering=True)
    from imagedex.cli import main

    try:
        main()
    finally:
        # As a program ends that was not forked, and before its exit code is told.
        threading._shutdown()  # type: ignore[attr-defined] # Waits for its threads.
        atexit._run_exitfuncs()


def _writer(descriptor: int) -> io.BufferedWriter:
    return io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
