"""Threads for the services, which block: one lane for each kind of work.

A query costs milliseconds of computing, a status call well under one, and a look at a network
share that hangs never ends. In one common pool a burst of queries, or eight such looks, would
occupy every thread, and all other calls would wait behind them; with lanes a call waits only for
its own kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, TypeVar

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


class SharedReads:
    """Runs calls that only read, in a lane; callers that wait for the same call share its answer.

    Twenty dashboards that poll one job then cost little more than one. A call that has begun
    is not joined, so everybody gets what was read after he asked.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._waiting: dict[Hashable, asyncio.Task[Any]] = {}

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the call returns; its arguments must be hashable, its answer immutable."""
        key = call, args, tuple(sorted(kwargs.items()))
        task = self._waiting.get(key)
        if task is None:
            task = asyncio.create_task(self._run_alone(key, partial(call, *args, **kwargs)))
            self._waiting[key] = task
        # A caller that leaves must not take the answer from the others.
        answer: T = await asyncio.shield(task)
        return answer

    async def _run_alone(self, key: Hashable, call: Callable[[], T]) -> T:
        def begin() -> T:
            self._waiting.pop(key, None)
            return call()

        try:
            return await self._lane.run(begin)
        finally:
            # When it has not begun (no room, no thread), later calls must not get its error.
            if self._waiting.get(key) is asyncio.current_task():
                del self._waiting[key]


@dataclass(frozen=True)
class Lanes:
    """The lanes of one API."""

    gate: Lane  # Checks of keys: the database only, so that nothing locks everybody out.
    queries: Lane
    costly_queries: Lane  # Each may take as long as a hundred others.
    uploads: Lane
    pictures: Lane
    paths: Lane  # Calls that look at the image roots, where a dead share can hold them for ever.
    control: Lane  # Changes to jobs and keys: the database only.
    reads: SharedReads  # Jobs and their failures: the database only.
    stats: SharedReads  # The state of indexes, from their storage.
    metrics: Lane  # The same and more, for Prometheus.
    checks: Lane

    @classmethod
    def open(cls) -> Lanes:
        """Return lanes whose sizes suit this machine; they hold no threads until called."""
        return cls(
            gate=Lane("checks of keys", threads=2, max_waiting=1024),
            # Queries that wait in a thread are encoded and searched together, as many as there
            # are threads; what computes for them are one or two of these.
            queries=Lane("queries", threads=32, max_waiting=256),
            costly_queries=Lane("queries of this kind", threads=4, max_waiting=64),
            uploads=Lane("pictures that are asked with", threads=2, max_waiting=16),
            pictures=Lane("thumbnails", threads=2, max_waiting=512),
            paths=Lane("calls that look at image roots", threads=4, max_waiting=32),
            control=Lane("requests", threads=4, max_waiting=1024),
            # Reads hold Python's lock most of their time: more threads would only fight for it.
            reads=SharedReads(Lane("reads", threads=1, max_waiting=1024)),
            stats=SharedReads(Lane("reads of statistics", threads=1, max_waiting=256)),
            metrics=Lane("scrapes", threads=2, max_waiting=16),
            checks=Lane("checks", threads=2, max_waiting=64),
        )
