"""A client of the real API over services in memory, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from imagedex.access import Scope
from imagedex.api import create_api
from imagedex.cli.in_process import InProcessTransport
from imagedex.client import ImagedexClient
from imagedex.testing.application import InMemoryApplication

Connect = Callable[[str], ImagedexClient]


@pytest.fixture
def application(tmp_path: Path) -> InMemoryApplication:
    """Return services whose one image root is ``tmp_path``."""
    return InMemoryApplication(tmp_path / "home", image_roots=(tmp_path,))


@pytest.fixture
def connect(application: InMemoryApplication) -> Iterator[Connect]:
    """Return a function that makes a client of the API over those services, for a key."""
    api = create_api(application)
    with ExitStack() as clients:
        yield lambda api_key: clients.enter_context(
            ImagedexClient("http://localhost", api_key, transport=InProcessTransport(api))
        )


@pytest.fixture
def client(application: InMemoryApplication, connect: Connect) -> ImagedexClient:
    """Return a client with all scopes."""
    return connect(application.key_with(Scope.ADMIN))
