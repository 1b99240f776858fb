"""Threads for the services, which block: one lane for each kind of work.

A query costs milliseconds of computing, a status call well under one. In one common pool a
burst of queries would occupy every thread, and the status calls would wait behind them all;
with lanes a call waits only for its own kind.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

from imagedex.core.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")


class Lane:
    """Runs blocking calls in at most ``threads`` threads at a time, in the order they came.

    When ``max_waiting`` calls wait already, further ones fail at once with Unavailable: an
    answer that would come too late is better refused while the client can still turn elsewhere.
    """

    def __init__(self, name: str, *, threads: int, max_waiting: int) -> None:
        self._name = name
        self._limiter = CapacityLimiter(threads)
        self._max_calls = threads + max_waiting
        self._calls = 0

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the call returns.

        A call that waits is given up when its request is cancelled; one that runs goes on.
        """
        if self._calls >= self._max_calls:
            raise Unavailable(
                f"{self._calls} {self._name} are under way already; try again in a moment."
            )
        self._calls += 1
        try:
            return await to_thread.run_sync(partial(call, *args, **kwargs), limiter=self._limiter)
        finally:
            self._calls -= 1


class Lanes:
    """The lanes of one API."""

    def __init__(self) -> None:
        cores = os.cpu_count() or 1
        # More threads than cores would only make queries slower side by side.
        self.queries = Lane("queries", threads=max(2, cores), max_waiting=256)
        self.pictures = Lane("thumbnails", threads=2, max_waiting=512)
        self.control = Lane("requests", threads=16, max_waiting=1024)
        self.checks = Lane("checks", threads=2, max_waiting=64)
