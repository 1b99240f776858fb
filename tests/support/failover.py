"""Two servers on one database and one index."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from support.server import ADMIN_KEY, ServerProcess

TAKEOVER_SECONDS = 60.0  # Far more than it takes; a test is no measurement.


class Pair:
    """Two servers, each with a home of its own."""

    def __init__(self, folder: Path, database_url: str, image_roots: list[Path]) -> None:
        environment = {
            "IMAGEDEX_DATABASE_URL": database_url,
            "IMAGEDEX_INDEX_PREFIX": str(folder / "index"),
            "IMAGEDEX_INDEXING__CHUNK_IMAGES": "8",
            "IMAGEDEX_INDEXING__COMMIT_SECONDS": "0.2",
            "IMAGEDEX_INDEXING__WORKERS": "1",
        }
        self.servers = [
            ServerProcess(folder / name, image_roots, environment) for name in ("one", "two")
        ]

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self.servers:
            server.stop()

    def leader(self) -> ServerProcess:
        """Return the one that runs the jobs, waiting for one to do so."""
        deadline = time.monotonic() + TAKEOVER_SECONDS
        while time.monotonic() < deadline:
            leaders = [server for server in self.servers if role_of(server) == "leader"]
            if len(leaders) == 1:
                return leaders[0]
            time.sleep(0.05)
        raise AssertionError("Neither of the servers, or both, run the jobs.")

    def other(self, server: ServerProcess) -> ServerProcess:
        """Return the other one."""
        return next(one for one in self.servers if one is not server)


def role_of(server: ServerProcess) -> str | None:
    """Return what a server says it is; None when it does not answer."""
    try:
        answer = httpx.get(f"{server.url}/health/ready", timeout=5.0)
    except httpx.TransportError:
        return None
    return str(answer.json().get("role")) if answer.status_code == 200 else None


def wait_for_role(server: ServerProcess, role: str) -> float:
    """Wait until a server is that; return the seconds that it took."""
    began = time.monotonic()
    while role_of(server) != role:
        assert time.monotonic() < began + TAKEOVER_SECONDS, server.log.read_text()[-4000:]
        time.sleep(0.05)
    return time.monotonic() - began


def freeze(server: ServerProcess) -> None:
    """Stop a server as a suspended machine would, its workers too."""
    os.killpg(server.pid, signal.SIGSTOP)


def thaw(server: ServerProcess) -> None:
    """Let it go on."""
    os.killpg(server.pid, signal.SIGCONT)


@dataclass
class Asker:
    """Asks one server the same query again and again, from ``start`` to ``stop``."""

    server: ServerProcess
    images: set[str]
    faults: list[str] = field(default_factory=list)
    answers: int = 0
    newest: int = 0

    def __post_init__(self) -> None:
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()

    def _ask(self) -> None:
        with self.server.client() as client:
            while not self._ends.wait(0.1):
                try:
                    self._ask_once(client)
                except (httpx.HTTPError, KeyError) as error:
                    self.faults.append(f"{self.server.home.name}: {error!r}")

    def _ask_once(self, client: httpx.Client) -> None:
        answer = client.post("/api/v1/query", json={"text": "a picture", "top_k": 1000})
        answer.raise_for_status()
        found = [result["image_path"] for result in answer.json()["results"]]
        if sorted(found) != sorted(set(found)) or not set(found) <= self.images:
            self.faults.append(f"{self.server.home.name}: {len(found)} found, some wrong or twice")
        self.answers += 1


def found_by(server: ServerProcess) -> list[str]:
    """Return all images that a server finds."""
    with server.client() as client:
        answer = client.post("/api/v1/query", json={"text": "a picture", "top_k": 1000})
        answer.raise_for_status()
        return sorted(result["image_path"] for result in answer.json()["results"])


def get(server: ServerProcess, path: str) -> dict[str, Any]:
    """Return an answer of a server."""
    answer = httpx.get(f"{server.url}/api/v1{path}", headers={"X-API-Key": ADMIN_KEY}, timeout=30.0)
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    return document
