"""Where a worker's output goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_MAX_BYTES = 8 * 1024 * 1024


class WorkerLog:
    """The log file of one worker slot, at most about 16 MB together with its predecessor.

    Workers write to it themselves, so that a busy controller never holds one up. It is open for
    appending, which makes it safe to cut while they write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> BinaryIO:
        """Open the file for appending, making it and its directory; raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.bound()
        # Image paths may stand in it, so it is its owner's alone.
        return os.fdopen(
            os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb"
        )

    def bound(self) -> None:
        """Move what there is to ``….1`` when the file has grown too large.

        Lines written between the copy and the cut are lost.
        """
        try:
            if self.path.stat().st_size <= _MAX_BYTES:
                return
            with open(self.path, "rb") as source:
                source.seek(-_MAX_BYTES, os.SEEK_END)
                kept = source.read(_MAX_BYTES)
            self.path.with_name(self.path.name + ".1").write_bytes(kept)
        except FileNotFoundError:
            return
        finally:
            # Also when the copy fails on a full disk: cutting is what helps then.
            if self.path.exists() and self.path.stat().st_size > _MAX_BYTES:
                os.truncate(self.path, 0)

    def tail(self, max_lines: int = 12) -> str:
        """Return the last lines, or a sentence that there are none."""
        try:
            with open(self.path, "rb") as source:
                size = source.seek(0, os.SEEK_END)
                source.seek(max(0, size - 8192))
                text = source.read().decode(errors="replace")
        except OSError as error:
            return f"(no log: {error})"
        return "\n".join(text.splitlines()[-max_lines:]) or "(its log is empty)"
