"""The Dask end of a worker: where a chunk meets the context of its process."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import distributed
from distributed.diagnostics.plugin import WorkerPlugin

from imagedex.core.paths import PathMapping
from imagedex.engine._context import ProcessContext
from imagedex.engine._envelope import answer_call

PROGRESS_TOPIC = "imagedex-progress"
"""Of the events by which workers say how far their calls are: call id, images done, in hand."""

_PLUGIN = "imagedex-context"


class ContextPlugin(WorkerPlugin):
    """Keeps the context with its Dask worker, and closes it when the worker ends."""

    name = _PLUGIN

    def __init__(
        self, *, worker_id: str, host: str, threads: int, is_remote: bool, paths: PathMapping
    ) -> None:
        self.context = ProcessContext(
            worker_id=worker_id,
            host=host,
            threads=threads,
            is_remote=is_remote,
            paths=paths,
            on_progress=self._tell,
        )
        self._worker: Any = None

    def setup(self, worker: Any) -> None:
        """Know the worker through which progress is told."""
        self._worker = worker

    async def teardown(self, worker: Any) -> None:  # noqa: ARG002 - Dask's signature.
        """Close the context's resources away from the event loop, which serves Dask meanwhile."""
        await asyncio.to_thread(self.context.close)

    def _tell(self, call_id: str, images: int, in_hand: tuple[str, ...]) -> None:
        self._worker.log_event(PROGRESS_TOPIC, [call_id, images, list(in_hand)])


def run_chunk(sealed: bytes, call_id: str) -> bytes:
    """Answer a sealed call; Dask runs this in a worker that has the ContextPlugin."""
    return answer_call(_context_of(distributed.get_worker()).call(call_id), sealed)


def stop_chunk(call_id: str, dask_worker: Any) -> None:
    """Have a call end soon; Dask runs this beside it, on the worker's event loop."""
    _context_of(dask_worker).stop(call_id)


def _context_of(worker: Any) -> ProcessContext:
    return cast("ContextPlugin", worker.plugins[_PLUGIN]).context
