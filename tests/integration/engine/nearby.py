"""Hosts that are reached without SSH: their agents are processes beside the controller."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

from imagedex.engine.hosts import HostSpec

_TESTS = Path(__file__).resolve().parents[2]


class NearbyConnection:
    """Starts commands on this machine as SSH would on another: by a shell."""

    own_address = "127.0.0.1"

    def __init__(self, state: Path, greeting: str) -> None:
        self._state = state
        self._greeting = greeting
        self._started: list[asyncio.subprocess.Process] = []

    async def start(self, argv: Sequence[str]) -> NearbyProcess:
        """Start a command, after what the shell has to say."""
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", 'printf "$0"; exec "$@"', self._greeting, *argv),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "XDG_STATE_HOME": str(self._state), "PYTHONPATH": str(_TESTS)},
        )
        self._started.append(process)
        return NearbyProcess(process)

    def abort(self) -> None:
        """Close the pipes of all that was started, as sshd does."""
        for process in self._started:
            assert process.stdin is not None
            process.stdin.close()


class NearbyProcess:
    """A command of a NearbyConnection."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def write(self, data: bytes) -> None:
        """Send to its standard input."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.write(data)

    async def output(self) -> AsyncIterator[bytes]:
        """Yield its output."""
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(1 << 16):
            yield data

    def complaints(self) -> str:
        """Return nothing: the tests look elsewhere."""
        return ""

    async def wait(self) -> str:
        """Say how it ended."""
        return f"ended with status {await self._process.wait()}"


class Road:
    """How nearby hosts are reached, and what happens on the way; ``connect`` is for an engine."""

    def __init__(self, state: Path, *, greeting: str = "") -> None:
        self._state = state
        self._greeting = greeting
        self.accidents: list[Exception] = []  # Of the next attempts.
        self.attempts = 0

    async def connect(self, spec: HostSpec) -> NearbyConnection:
        """Open a connection, unless an accident happens."""
        self.attempts += 1
        if self.accidents:
            raise self.accidents.pop(0)
        return NearbyConnection(self._state / spec.name, self._greeting)
