"""Readiness: asked by anybody, at a bounded cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from imagedex.api.lanes import Lane


class Readiness:
    """Runs the checks, one run at a time for all who ask.

    The checks encode and search for real, and need no key; without a bound a stranger could
    keep every core busy with them. Who asks during a run waits for its result, and a good result
    stands for ``fresh_seconds``. A bad one never stands, so that becoming ready shows at once.
    """

    def __init__(
        self, check: Callable[[], dict[str, str]], lane: Lane, *, fresh_seconds: float = 1.0
    ) -> None:
        self._check = check
        self._lane = lane
        self._fresh_seconds = fresh_seconds
        self._run: asyncio.Task[dict[str, str]] | None = None
        self._good: dict[str, str] = {}
        self._good_until = 0.0

    async def checks(self) -> dict[str, str]:
        """Return each check by name: ``ok`` or why it is not."""
        if asyncio.get_running_loop().time() < self._good_until:
            return self._good
        if self._run is None or self._run.done():
            self._run = asyncio.create_task(self._run_checks())
        # Shielded, because the others who wait for the run outlive the one who leaves.
        return await asyncio.shield(self._run)

    async def _run_checks(self) -> dict[str, str]:
        checks = await self._lane.run(self._check)
        if is_ready(checks):
            self._good = checks
            self._good_until = asyncio.get_running_loop().time() + self._fresh_seconds
        return checks


def is_ready(checks: dict[str, str]) -> bool:
    """Say whether every check passed."""
    return all(result == "ok" for result in checks.values())
