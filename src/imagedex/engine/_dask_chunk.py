"""The Dask end of a worker: where a chunk meets the context of its process."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import distributed
from distributed.diagnostics.plugin import WorkerPlugin

from imagedex.engine._context import ProcessContext
from imagedex.engine._envelope import answer_call

_PLUGIN = "imagedex-context"


class ContextPlugin(WorkerPlugin):
    """Keeps the context with its Dask worker, and closes it when the worker ends."""

    name = _PLUGIN

    def __init__(self, context: ProcessContext) -> None:
        self.context = context

    async def teardown(self, worker: Any) -> None:  # noqa: ARG002 - Dask's signature.
        """Close the context's resources away from the event loop, which serves Dask meanwhile."""
        await asyncio.to_thread(self.context.close)


def run_chunk(sealed: bytes) -> bytes:
    """Answer a sealed call; Dask runs this in a worker that has the ContextPlugin."""
    plugin = cast("ContextPlugin", distributed.get_worker().plugins[_PLUGIN])
    return answer_call(plugin.context, sealed)
