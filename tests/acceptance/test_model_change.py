"""A server whose index gets another model while it is queried, added to and killed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.commands import Commands
from support.pictures import draw_pictures
from support.server import ServerProcess, wait_for_job
from support.tiny_models import write_tiny_clip


class _Clients:
    """Asks all the while; a server that was killed is waited for, any other answer is a fault."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]
        self.is_down = threading.Event()
        self.faults: list[str] = []
        self.models: set[str] = set()
        self.answers = 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        last_model = "bundled"
        scores: dict[tuple[str, str], float] = {}
        with self._server.client() as client:
            while not self._is_over.is_set():
                try:
                    answer = client.post(
                        "/api/v1/query", json={"text": "a red circle", "top_k": 1000}
                    )
                except httpx.TransportError as error:
                    if not self.is_down.is_set():
                        self.faults.append(repr(error))
                    time.sleep(0.05)
                    continue
                if answer.status_code != 200:
                    if not self.is_down.is_set():
                        self.faults.append(answer.text)
                    continue
                self.answers += 1
                document = answer.json()
                fault = _fault(document, last_model, scores)
                if fault is not None:
                    self.faults.append(fault)
                last_model = document["index_stats"]["model"]
                self.models.add(last_model)


def _fault(
    document: dict[str, Any], model_before: str, scores: dict[tuple[str, str], float]
) -> str | None:
    stats, results = document["index_stats"], document["results"]
    if model_before == "mine" and stats["model"] != "mine":
        return f"{stats} after answers of the new model"
    if len(results) != stats["total_images"]:
        return f"{len(results)} results of {stats}"
    for result in results:
        key = (stats["model"], result["image_path"])
        if abs(scores.setdefault(key, result["score"]) - result["score"]) > 1e-5:
            return f"{key} has another score than before: vectors of two models were compared"
    return None


@pytest.mark.timeout(300)
def test_no_query_fails_or_is_mixed_and_nothing_is_lost_when_the_server_is_killed_in_the_midst(
    tmp_path: Path,
) -> None:
    photos = tmp_path / "photos"
    images = {str(path) for path in draw_pictures(photos, 120)}
    home = tmp_path / "home"
    tiny = write_tiny_clip(tmp_path / "tiny")
    Commands.local(home).run("models", "pull", "mine", "--from-dir", tiny)
    server = ServerProcess(home, [photos], {"IMAGEDEX_INDEXING__CHUNK_IMAGES": "8"})
    clients = _Clients(server)
    try:
        server.start()
        with server.client() as client:
            job = client.post("/api/v1/index/trigger", json={"image_dir": str(photos)}).json()
            assert wait_for_job(client, job["job_id"])["status"] == "completed"
            clients.start()
            answer = client.post("/api/v1/index/model", json={"model": "mine"})
            assert answer.status_code == 202, answer.text
            change = answer.json()["job_id"]
            _wait_until_some_are_embedded(client, change)
            clients.is_down.set()
            server.kill()
            server.start()
            clients.is_down.clear()
            later = draw_pictures(tmp_path / "later", 3, seed=9)
            added = [str(path.rename(photos / f"later-{path.name}")) for path in later]
            job = client.post("/api/v1/index/notify", json={"image_paths": added}).json()
            assert wait_for_job(client, job["job_id"])["status"] == "completed"
            status = wait_for_job(client, change)
            assert status["status"] == "completed", status
            query = {"text": "night", "top_k": 1000}
            document = client.post("/api/v1/query", json=query).json()
    finally:
        clients.stop()
        server.stop()
    assert clients.faults == []
    assert "bundled" in clients.models
    assert document["index_stats"]["model"] == "mine"
    found = [result["image_path"] for result in document["results"]]
    assert sorted(found) == sorted({*images, *added})


def _wait_until_some_are_embedded(client: httpx.Client, job_id: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        progress = client.get(f"/api/v1/index/status/{job_id}").json()["progress"]
        if progress["processed_images"] > 0:
            return
        time.sleep(0.01)
    raise AssertionError("Nothing was embedded.")
