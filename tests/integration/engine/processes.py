"""What the tests ask the kernel about processes."""

from __future__ import annotations

from pathlib import Path


def is_alive(pid: int) -> bool:
    """Say whether a process runs; one that ended and was not reaped yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")
