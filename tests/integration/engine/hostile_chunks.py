"""Chunks that do to their worker what crashing libraries and full memory do."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

from imagedex.core.errors import UnfitWorker
from imagedex.engine import WorkerContext


def mark(directory: str, name: str) -> None:
    """Leave a file with this process's id; it appears with its content."""
    draft = Path(directory) / f"{name}.draft"
    draft.write_text(str(os.getpid()))
    draft.rename(Path(directory) / name)


def die(context: WorkerContext, directory: str) -> None:
    """End the worker the hard way."""
    mark(directory, f"died-{os.getpid()}")
    os.kill(os.getpid(), signal.SIGKILL)


def hang_with_the_interpreter_locked(context: WorkerContext, directory: str) -> None:
    """Stop the whole interpreter, as a library in an endless loop does."""
    mark(directory, "hangs")
    ctypes.PyDLL(None).pause()  # PyDLL keeps the interpreter's lock.


def hang_with_a_child(context: WorkerContext, directory: str) -> None:
    """Wait for a child that never ends, as for a decoder."""
    child = subprocess.Popen(["sleep", "3600"])
    draft = Path(directory) / "child.draft"
    draft.write_text(str(child.pid))
    draft.rename(Path(directory) / "child")
    mark(directory, "waits")
    child.wait()


def write_output(context: WorkerContext, text: str) -> None:
    """Write to standard output and error."""
    sys.stdout.write(f"{text} printed\n")
    sys.stderr.write(f"{text} complained\n")


def read_environment(context: WorkerContext, name: str) -> str | None:
    """Return an environment variable of the worker."""
    return os.environ.get(name)


def list_environment(context: WorkerContext, prefix: str) -> list[str]:
    """Return the names of the worker's environment variables that begin so."""
    return sorted(name for name in os.environ if name.startswith(prefix))


def read_input(context: WorkerContext, payload: None) -> bytes:
    """Return what a child of the worker would find on its standard input."""
    return os.read(0, 100)


def be_unfit_on(context: WorkerContext, payload: tuple[str, str]) -> str:
    """Say that a host is of no use as long as a file is there; return the host that is."""
    host, mark = payload
    if context.host == host and Path(mark).exists():
        raise UnfitWorker(f"Host {host} lacks the share.")
    return context.host


def require_mark(context: WorkerContext, mark: str) -> None:
    """Be a check of hosts, which wants a file below the host's own place of a directory."""
    path = context.paths.local(mark)
    if not Path(path).exists():
        raise UnfitWorker(f"Host {context.host} sees no {path!r}.")
