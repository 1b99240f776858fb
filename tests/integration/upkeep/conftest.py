"""An index with a main segment, a later one and tombstones, made as a server makes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.controller import Controller
from support.decoders import ReadyDecoders

COLOURS = ("red", "green", "blue", "yellow", "white", "black")


@pytest.fixture(autouse=True)
def _decoders(ready_decoders: ReadyDecoders) -> None:
    """Let them start at once."""


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    """Six photos, one of which has changed since."""
    controller = Controller(tmp_path)
    controller.runner.start()
    for colour in COLOURS:
        controller.paint(f"{colour}.png", colour)
    controller.index()
    controller.paint("red.png", "orange")
    controller.index()
    yield controller
    controller.close()
