"""A signal that asks the process to end does so whenever it comes."""

from __future__ import annotations

import gc
import signal
import weakref
from collections.abc import Iterator

import pytest

from imagedex.cli.signals import endings_put_off


class _Asked(Exception):
    """What a handler raises."""


class _Garbage:
    """Is collected only as garbage."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def handled() -> Iterator[None]:
    def ask(*_: object) -> None:
        raise _Asked

    before = signal.signal(signal.SIGTERM, ask)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("handled")
def test_a_signal_during_a_collection_of_garbage_is_not_lost() -> None:
    finalised = []

    def finalise(_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        finalised.append(True)

    reference = weakref.ref(_Garbage(), finalise)

    def collect() -> None:
        with endings_put_off():
            gc.collect()
            assert finalised

    with pytest.raises(_Asked):
        collect()
    assert reference() is None


@pytest.mark.usefixtures("handled")
def test_afterwards_signals_are_handled_at_once_again() -> None:
    with endings_put_off():
        pass
    with pytest.raises(_Asked):
        signal.raise_signal(signal.SIGTERM)
