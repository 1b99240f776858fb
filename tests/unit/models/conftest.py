"""A home with a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.models import InstalledModel, ModelStore
from imagedex.models.pull import install_directory
from support.tiny_models import write_tiny_clip
from support.watching import RecordingWatcher


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "home" / "models")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_clip(tmp_path / "tiny")


@pytest.fixture
def installed(store: ModelStore, tiny: Path) -> InstalledModel:
    return install_directory("tiny", tiny, store=store, watcher=RecordingWatcher())
