"""What a worker process is told when it starts: one line of JSON on its standard input.

Neither the command line nor the environment carries it, because other users of the machine can
read the one, and child processes inherit the other.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from imagedex.engine._credentials import Credentials

CHUNKS_AT_ONCE = 2
"""Chunks that a worker has: one that it works on, and one that prepares to be the next."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """All that a worker needs to take part."""

    worker_id: str
    host: str  # As the worker reports itself.
    threads: int  # Cores that the worker may keep busy.
    scheduler_address: str
    scratch_directory: str
    controller_pid: int  # Of the controller or agent; the worker ends with this process.
    credentials: Credentials
    is_remote: bool = False  # It runs on another machine than the controller.
    ports: str = "0"  # That it may listen on: any, or a range as "8790:8849".
    paths: tuple[tuple[str, str], ...] = ()  # The pairs of a PathMapping.
    gpu: int | None = None  # The only one that it may use; None leaves it as it is.

    def to_line(self) -> bytes:
        """Return the line, with its end."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> WorkerConfig:
        """Read a line that :meth:`to_line` made. Raises ValueError when it is another."""
        fields = json.loads(line)
        return cls(
            **{
                **fields,
                "credentials": Credentials(**fields["credentials"]),
                "paths": tuple((there, here) for there, here in fields["paths"]),
            }
        )
