"""What is collected only where torch, transformers and OpenCLIP are: ``make exactness``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parent

if any(find_spec(name) is None for name in ("torch", "transformers", "open_clip")):
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let torch and transformers warn of their own code, which no test here is about."""
    for item in items:
        if _FOLDER in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore"))
