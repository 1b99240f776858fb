"""A hub on loopback with tiny models, and an empty home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from imagedex.models import ModelStore
from imagedex.models._huggingface import HuggingFaceHub
from support.model_hub import ModelHubServer, model_hub
from support.watching import RecordingWatcher


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHubServer]:
    # A proxy of the machine must not be asked for this machine itself.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # The library counts what has arrived in steps of 10 MB, more than a test should send.
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 256 * 1024)
    with model_hub() as running:
        yield running


@pytest.fixture
def hub(server: ModelHubServer) -> HuggingFaceHub:
    return HuggingFaceHub(server.url)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "home" / "models")


@pytest.fixture
def watcher() -> RecordingWatcher:
    return RecordingWatcher()
