"""Real servers and a real browser for the acceptance tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from support.fresh_processes import process_context, ready_programs
from support.server import ServerProcess

__all__ = ["process_context", "ready_programs"]

ServerFactory = Callable[..., ServerProcess]

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_FLAGS = (
    "--no-sandbox",  # The tests may run as root, where Chromium's sandbox does not work.
    "--disable-gpu",
    # The browser must not talk to anything but the server under test.
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module", autouse=True)
def _programs(ready_programs: None) -> None:
    """Let commands and servers begin with everything imported, but for the fresh ones."""


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[ServerFactory]:
    """Start ``imagedex serve`` on loopback with ``start_server([image roots], {environment})``.

    Each call makes a new home; the server is ready when the call returns. All are stopped at the
    end of the test.
    """
    servers: list[ServerProcess] = []

    def start(
        image_roots: Sequence[Path], environment: dict[str, str] | None = None
    ) -> ServerProcess:
        server = ServerProcess(tmp_path / f"home-{len(servers)}", image_roots, environment)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def server(tmp_path: Path, start_server: ServerFactory) -> ServerProcess:
    """Return a server that is ready, with an empty image root: ``tmp_path / "images"``."""
    (tmp_path / "images").mkdir(exist_ok=True)
    return start_server([tmp_path / "images"])


# Not for the whole session: while Playwright runs, this thread has a running event loop, and
# tests elsewhere start one of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a real headless Chromium; skip where it is not installed. Mark users ``browser``."""
    path = next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("Chromium is not installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield browser
        browser.close()
