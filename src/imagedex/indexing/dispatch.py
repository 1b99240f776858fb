"""Giving chunks to workers, as many at a time as they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait

from imagedex.core.errors import EngineError
from imagedex.engine import Engine
from imagedex.indexing.chunk import ChunkTask, embed_chunk
from imagedex.jobs import ChunkDone

_STOP_CHECK_SECONDS = 0.5
"""How often a job that waits for its workers looks whether it should stop."""

_MAX_FAILED_CHUNKS = 3
"""In one run of a job; with more of them it is the engine that fails and not a chunk."""


def embed_all(
    engine: Engine,
    tasks: Iterator[ChunkTask],
    *,
    on_done: Callable[[ChunkDone], None],
    on_tick: Callable[[], None],
    group: str | None = None,
) -> None:
    """Have workers embed chunks, and call ``on_done`` for each and ``on_tick`` in between.

    ``tasks`` is asked for the next one when a worker is free; with a ``group`` one worker does
    them all. A chunk that fails must not keep the others from being done, so its EngineError is
    raised at the end; when several fail, no more are begun. What either function raises ends it
    at once.
    """
    engine.start()
    futures: set[Future[ChunkDone]] = set()
    failed: list[EngineError] = []
    try:
        while True:
            while len(failed) < _MAX_FAILED_CHUNKS and len(futures) < engine.chunks_in_flight:
                task = next(tasks, None)
                if task is None:
                    break
                futures.add(engine.submit(embed_chunk, task, group=group))
            if not futures:
                break
            done, futures = wait(futures, timeout=_STOP_CHECK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                try:
                    on_done(future.result())
                except EngineError as error:
                    failed.append(error)
            on_tick()
    finally:
        for future in futures:
            future.cancel()
    if failed:
        raise failed[0]
