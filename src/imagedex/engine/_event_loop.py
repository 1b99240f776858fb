"""An event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class EventLoopThread:
    """Runs coroutines and callbacks for other threads, from its making until :meth:`close`."""

    def __init__(self, name: str) -> None:
        # asyncio's own loop whatever policy the server has set: Dask is not tested with others.
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], *, timeout_seconds: float) -> T:
        """Run a coroutine to its end and return its result; must not be called on the loop.

        Raises what the coroutine raises, and TimeoutError (having cancelled it) when it takes
        too long.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_seconds)
        except TimeoutError:
            future.cancel()
            raise

    def call(self, callback: Callable[..., object], *args: Any) -> bool:
        """Have a callback called on the loop; False when the loop is closed already."""
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            return False
        return True

    def close(self, *, timeout_seconds: float) -> None:
        """Stop the loop, cancelling what still runs on it. Calling it again does nothing."""
        self.call(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()
