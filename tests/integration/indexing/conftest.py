"""A controller whose jobs run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.controller import Controller
from support.decoders import ReadyDecoders


@pytest.fixture(autouse=True)
def _decoders(ready_decoders: ReadyDecoders) -> None:
    """Let them start at once."""


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    controller = Controller(tmp_path)
    controller.runner.start()
    yield controller
    controller.close()
