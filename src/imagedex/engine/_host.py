"""What a session asks of a machine on which its workers run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imagedex.engine._authority import Authority
from imagedex.engine._credentials import Credentials


@dataclass(frozen=True, slots=True)
class EngineTicket:
    """What hosts need to have their workers take part in a session."""

    address: str  # Of the hub, for workers on this machine.
    port: int  # Of the hub.
    credentials: Credentials  # For workers on this machine.
    authority: Authority  # Makes those of the others.
    scratch: Path  # A directory of the session's own, on this machine.


class Host(Protocol):
    """A machine and its workers: started once, closed once, its workers replaced when they end.

    Safe to call from several threads. What it is handed as ``on_failing`` is called whenever
    :attr:`is_failing` may have become true.
    """

    @property
    def name(self) -> str:
        """What the workers report as their host."""
        ...

    @property
    def slots(self) -> int:
        """How many workers there shall be at once."""
        ...

    @property
    def is_failing(self) -> bool:
        """Whether every one of its workers has failed at least once."""
        ...

    def start(self, ticket: EngineTicket) -> None:
        """Start the workers; returns before they run."""
        ...

    def expects(self, worker_id: str) -> bool:
        """Say whether a worker of this id is one that the host has started."""
        ...

    def kill(self, worker_id: str) -> None:
        """End a worker that may no longer answer; another one takes its place."""
        ...

    def why_no_worker(self) -> str:
        """Return what is known of workers that are missing, in words for an operator."""
        ...

    def close(self, *, grace_seconds: float) -> None:
        """End all workers; those that still run after the grace are killed."""
        ...
