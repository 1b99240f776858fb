"""What controller and agent say to each other: one JSON object a line, through SSH.

Each object has one member, which names what is said. From the controller: ``begin``, ``ping``,
``kill``, ``end``. From the agent: ``hello``, ``began``, ``pong``, ``exit``, ``failed``. Credentials
pass in ``begin``, on standard input: a command line or an environment can be read by others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Self

from imagedex.engine._credentials import Credentials
from imagedex.engine._release import Release

MAX_LINE_BYTES = 64 * 1024

PING_SECONDS = 2.0
"""How often the controller pings."""

LOST_SECONDS = 8.0
"""A host from which nothing came for so long is lost to the controller."""

DEADMAN_SECONDS = 12.0
"""An agent that heard nothing for so long ends its workers: they are lost to the controller."""

_MAX_TAIL_CHARACTERS = 8000


class WireError(Exception):
    """The other side said what makes no sense here."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first words of an agent."""

    release: Release
    cores: int  # That it may use.
    pid: int

    def to_fields(self) -> dict[str, Any]:
        """Return what goes over the wire."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Any) -> Self:
        """Read what :meth:`to_fields` made. Raises WireError."""
        with _strictly("hello"):
            release = Release(**{name: str(value) for name, value in fields["release"].items()})
            return cls(release, int(fields["cores"]), int(fields["pid"]))


@dataclass(frozen=True, slots=True)
class Begin:
    """All that an agent needs to start its workers."""

    host: str  # The name that the operator gave it.
    installation: str  # The controller's: one agent serves each.
    start: int  # How many agents the controller has started on this host, with this one.
    scheduler_address: str
    credentials: Credentials
    workers: int
    threads: int  # Of one worker; 0 shares the cores.
    gpus: tuple[int, ...]
    paths: tuple[tuple[str, str], ...]
    ports: str  # That workers listen on: "0", or "8790:8849".

    def to_fields(self) -> dict[str, Any]:
        """Return what goes over the wire."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Any) -> Self:
        """Read what :meth:`to_fields` made. Raises WireError."""
        with _strictly("begin"):
            return cls(
                **{
                    **fields,
                    "credentials": Credentials(**fields["credentials"]),
                    "gpus": tuple(int(gpu) for gpu in fields["gpus"]),
                    "paths": tuple((str(there), str(here)) for there, here in fields["paths"]),
                }
            )


@dataclass(frozen=True, slots=True)
class Exit:
    """A worker has ended that nobody had asked to end."""

    worker_id: str
    slot: int
    how: str
    log_tail: str

    def to_fields(self) -> dict[str, Any]:
        """Return what goes over the wire: no more than fits into a line."""
        return {**asdict(self), "log_tail": self.log_tail[-_MAX_TAIL_CHARACTERS:]}

    @classmethod
    def from_fields(cls, fields: Any) -> Self:
        """Read what :meth:`to_fields` made. Raises WireError."""
        with _strictly("exit"):
            return cls(
                worker_id=str(fields["worker_id"]),
                slot=int(fields["slot"]),
                how=str(fields["how"]),
                log_tail=str(fields["log_tail"]),
            )


def line_of(kind: str, content: Any) -> bytes:
    """Return a line, with its end."""
    return json.dumps({kind: content}).encode() + b"\n"


def read_line(line: bytes) -> tuple[str, Any]:
    """Return what a line says, by its kind. Raises WireError for what is no such line."""
    try:
        message = json.loads(line)
    # A line can nest deeper than Python may go.
    except (ValueError, RecursionError) as error:
        raise WireError(f"{line[:200]!r} is no JSON") from error
    if not isinstance(message, dict) or len(message) != 1:
        raise WireError(f"{line[:200]!r} is no object with one member")
    return next(iter(message.items()))


class Lines:
    """Makes lines of what arrives in pieces."""

    def __init__(self) -> None:
        self._begun = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are complete now. Raises WireError when one grows too long."""
        *lines, self._begun = (self._begun + data).split(b"\n")
        if max(map(len, [*lines, self._begun])) > MAX_LINE_BYTES:
            raise WireError(f"a line is longer than {MAX_LINE_BYTES} bytes")
        return lines


@contextmanager
def _strictly(kind: str) -> Iterator[None]:
    """Turn the errors of reading a message into WireError."""
    try:
        yield
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        # Without its text, which could hold what the message holds.
        raise WireError(f"{kind!r} cannot be read: {type(error).__name__}") from error
