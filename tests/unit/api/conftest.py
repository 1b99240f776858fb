"""An API over an application in memory, and a client that speaks HTTP to it in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from imagedex.access import Scope
from imagedex.api import create_api
from imagedex.testing.application import InMemoryApplication
from support.api import ApiClient, plain_log


@pytest.fixture(autouse=True)
def _plain_log() -> Iterator[None]:
    with plain_log():
        yield


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    """An event loop in a thread of its own."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The only image root."""
    photos = tmp_path / "photos"
    photos.mkdir()
    return photos


@pytest.fixture
def application(tmp_path: Path, photos: Path) -> InMemoryApplication:
    application = InMemoryApplication(
        tmp_path / "home", image_roots=(photos,), index_roots=(tmp_path / "indexes",)
    )
    application.image_paths = [f"{photos}/{number}.jpg" for number in range(3)]
    return application


@pytest.fixture
def api(application: InMemoryApplication) -> FastAPI:
    return create_api(application)


@pytest.fixture
def client(portal: BlockingPortal, api: FastAPI) -> ApiClient:
    return ApiClient(portal, api)


@pytest.fixture
def keys(application: InMemoryApplication) -> dict[str, str]:
    """A key's secret for each scope."""
    return {scope.value: application.key_with(scope) for scope in Scope}


@pytest.fixture
def admin(keys: dict[str, str]) -> str:
    return keys["admin"]
