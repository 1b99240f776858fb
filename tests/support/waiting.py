"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 60.0


def wait_until(is_done: Callable[[], bool]) -> None:
    """Look until it is so; fail after a minute."""
    deadline = time.monotonic() + SECONDS
    while not is_done():
        assert time.monotonic() < deadline, "It did not happen within a minute."
        time.sleep(0.01)
