"""One agent of a controller on a machine: the newer one ends the older."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_POLITE_SECONDS = 1.5  # For an agent to end its workers by itself.
_PAUSE_SECONDS = 0.02


class AgentHeld(Exception):
    """Another agent does not end; the text says which."""


@contextlib.contextmanager
def sole_agent(path: Path, *, wait_seconds: float) -> Iterator[None]:
    """Hold the lock of the agents of one controller, having ended the one that holds it.

    On this machine it is told to end, and killed when it does not. One on another machine, which
    can only share this file, ends by itself when it hears of its controller no more. Raises
    AgentHeld when that takes too long, OSError when the file cannot be used.
    """
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        _take(file.fileno(), path, wait_seconds)
        file.truncate()
        json.dump(identity_of(os.getpid()), file)
        file.flush()
        # The lock ends with the descriptor, however the process does.
        yield


def _take(descriptor: int, path: Path, wait_seconds: float) -> None:
    began = time.monotonic()
    sent: signal.Signals | None = None
    while not _try_lock(descriptor):
        waited = time.monotonic() - began
        wanted = signal.SIGTERM if waited < _POLITE_SECONDS else signal.SIGKILL
        holder = _holder(path)
        if holder is not None and sent is not wanted:
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder, wanted)
            sent = wanted
        if waited > wait_seconds:
            raise AgentHeld(f"an older agent holds {str(path)!r} and does not end (pid {holder})")
        time.sleep(_PAUSE_SECONDS)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> int | None:
    """Return the process that holds the lock, if it is one of this machine that has said so."""
    try:
        known = json.loads(path.read_text())
        # Whoever holds the lock may be about to write here; what stands here still can be of one
        # that ended long ago, and its number another process's by now.
        return int(known["pid"]) if known == identity_of(int(known["pid"])) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def identity_of(pid: int) -> dict[str, object]:
    """Return what tells a process from all others that ever had its number. Raises OSError."""
    # See proc_pid_stat(5): the name in parentheses may hold anything, the start is the 22nd field.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {"pid": pid, "started": int(fields[19]), "boot": _BOOT_ID.read_text().strip()}
