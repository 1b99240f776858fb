"""Readiness: asked by anybody, at a bounded cost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from imagedex.api.lanes import Lane


class Readiness:
    """Runs the checks, one run at a time for all who ask.

    The checks encode and search for real, and need no key; without a bound a stranger could
    keep every core busy with them. Who asks during a run waits for its result, but not beyond
    ``max_seconds`` after its start. A good result stands for ``good_seconds``, a bad one for the
    shorter ``bad_seconds``, so that becoming ready shows soon.
    """

    def __init__(
        self,
        check: Callable[[], dict[str, str]],
        lane: Lane,
        *,
        good_seconds: float = 1.0,
        bad_seconds: float = 0.25,
        max_seconds: float = 10.0,
    ) -> None:
        self._check = check
        self._lane = lane
        self._good_seconds = good_seconds
        self._bad_seconds = bad_seconds
        self._max_seconds = max_seconds
        self._run: asyncio.Task[dict[str, str]] | None = None
        self._run_until = 0.0
        self._result: dict[str, str] = {}
        self._result_until = 0.0

    async def checks(self) -> dict[str, str]:
        """Return each check by name: ``ok`` or why it is not."""
        now = asyncio.get_running_loop().time()
        if now < self._result_until:
            return self._result
        if self._run is None or self._run.done():
            self._run = asyncio.create_task(self._run_checks())
            self._run_until = now + self._max_seconds
        try:
            async with asyncio.timeout_at(self._run_until):
                # Shielded, because the others who wait for the run outlive the one who leaves.
                return await asyncio.shield(self._run)
        except TimeoutError:
            return {"checks": f"no result after {self._max_seconds:g} s"}

    async def _run_checks(self) -> dict[str, str]:
        result = await self._lane.run(self._check)
        stands_seconds = self._good_seconds if is_ready(result) else self._bad_seconds
        self._result = result
        self._result_until = asyncio.get_running_loop().time() + stands_seconds
        return result


def is_ready(checks: dict[str, str]) -> bool:
    """Say whether every check passed."""
    return all(result == "ok" for result in checks.values())
