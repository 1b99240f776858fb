"""Processes for tests that kill them; a conftest imports the fixtures."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess

import pytest

from support import program
from support.committing import StartProcess
from support.decoders import ReadyDecoders

_IMPORTED = ["support.committing", "support.repairing", "support.snapshots", *program.IMPORTED]
_EXIT_WITH_WHAT_LACKS = f"import sys; sys.exit(len(set({_IMPORTED}) - set(sys.modules)))"


@pytest.fixture(scope="session")
def process_context() -> ForkServerContext:
    """Return a server of fresh processes that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        # It looks for modules on the path of any Python, not on ours, and says nothing of those
        # that it does not find: then each process imports them anew, for a second.
        patch.setenv("PYTHONPATH", os.pathsep.join(entry for entry in sys.path if entry))
        forkserver.ensure_running()
    process = context.Process(target=exec, args=(_EXIT_WITH_WHAT_LACKS,))
    process.start()
    process.join()
    assert process.exitcode == 0, f"The server of fresh processes lacks some of {_IMPORTED}."
    return context


@pytest.fixture(scope="module")
def ready_programs(process_context: ForkServerContext) -> Iterator[None]:
    """Let the program begin with everything imported, in all tests of a module."""
    with program.ready_programs(process_context):
        yield


@pytest.fixture
def ready_decoders(
    process_context: ForkServerContext, monkeypatch: pytest.MonkeyPatch
) -> ReadyDecoders:
    """Let decoders begin with everything imported, too."""
    decoders = ReadyDecoders(process_context)
    monkeypatch.setattr("imagedex.ingest._decoder_child.subprocess", decoders)
    return decoders


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
