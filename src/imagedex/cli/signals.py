"""Signals that ask the process to end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def endings_put_off() -> Iterator[None]:
    """Let SIGTERM and SIGINT wait for the end of the block. For the main thread.

    Their handlers raise. While garbage is collected they can run nowhere but in a finaliser, and
    what is raised there is printed and lost: the process would never end.
    """
    came: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, note) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for one in came:
            signal.raise_signal(one)
