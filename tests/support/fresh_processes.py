"""Processes for tests that kill them; a conftest imports the fixtures."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess

import pytest

from support.committing import StartProcess


@pytest.fixture(scope="session")
def process_context() -> ForkServerContext:
    """Return a server of fresh processes that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.committing", "support.repairing", "support.snapshots"])
    return context


@pytest.fixture
def start_process(process_context: ForkServerContext) -> Iterator[StartProcess]:
    """Start ``target(*arguments, reports)`` in a process of its own, ended with the test."""
    started: list[tuple[ForkServerProcess, Connection]] = []

    def start(
        target: Callable[..., None], *arguments: object
    ) -> tuple[ForkServerProcess, Connection]:
        mine, theirs = process_context.Pipe(duplex=False)
        process = process_context.Process(target=target, args=(*arguments, theirs), daemon=True)
        process.start()
        theirs.close()
        started.append((process, mine))
        return process, mine

    yield start
    for process, reports in started:
        process.kill()
        process.join()
        process.close()
        reports.close()
