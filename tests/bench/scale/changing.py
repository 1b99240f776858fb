"""Queries of a real server whose index is rebuilt, and gets new images, meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from bench.background import Background
from bench.figures import Bench
from bench.scale.library import Library
from bench.scale.serving import server_on
from support.server import ServerProcess, wait_for_job

_K = 10
_QUERIES = 500
_PAUSE_SECONDS = 0.01
_NEW_IMAGES = 20
_SECONDS_BETWEEN_APPENDS = 3.0


def rebuild(bench: Bench, library: Library) -> None:
    """Rebuild the index by a job of the server; memory counts together with serving."""
    photos = bench.scratch / "photos"
    photos.mkdir()
    with server_on(bench, library, photos) as server, server.client() as client:
        idle = _Answers()
        for number in range(_QUERIES):
            idle.ask(client, number)
        changing = _Answers(known=idle.scores)
        with _PeakMemory(server.pid) as memory, _Appending(server, photos) as appending:
            started = time.monotonic()
            job_id = client.post("/api/v1/index/rebuild", json={}).json()["job_id"]
            with _Waiting(server, job_id) as waiting:
                number = 0
                while not waiting.is_over:
                    changing.ask(client, number % _QUERIES)
                    time.sleep(_PAUSE_SECONDS)
                    number += 1
            seconds = time.monotonic() - started
        assert waiting.status["status"] == "completed", waiting.status
    bench.report("rebuild", seconds, "s")
    bench.at_most("rebuild, peak memory of the server", memory.peak / 1e9, "GB", 6)
    bench.report("images appended meanwhile", appending.appended, "")
    bench.report("queries meanwhile", len(changing.seconds), "")
    bench.at_most("queries meanwhile, failed", changing.failed, "", 0)
    bench.at_most("queries meanwhile, wrong", changing.wrong, "", 0)
    bench.report("query p99, idle", idle.milliseconds(99), "ms")
    bench.report("query p99, meanwhile", changing.milliseconds(99), "ms")
    ratio = changing.milliseconds(99) / idle.milliseconds(99)
    bench.at_most("query p99 meanwhile, against idle", ratio, "times", 3)


@dataclass
class _Answers:
    """What queries were answered, and in which time."""

    known: dict[int, dict[str, float]] = field(default_factory=dict)
    scores: dict[int, dict[str, float]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    wrong: int = 0

    def ask(self, client: httpx.Client, number: int) -> None:
        """Ask for the text of that number; hold the answer against what is known of it."""
        started = time.perf_counter()
        # Another text for the same vector each time, so that no cache answers; every other vector,
        # since the first half of them are like pictures, and the others like texts.
        again = 1 + len(self.seconds) // _QUERIES if self.known else 0
        text = str(2 * number + 2 * _QUERIES * again)
        answer = client.post("/api/v1/query", json={"text": text, "top_k": _K})
        self.seconds.append(time.perf_counter() - started)
        if answer.status_code != 200:
            self.failed += 1
            return
        results: list[dict[str, Any]] = answer.json()["results"]
        scores = {result["image_path"]: result["score"] for result in results}
        self.scores[number] = scores
        known = self.known.get(number, scores)
        values = [result["score"] for result in results]
        self.wrong += (
            len(scores) != _K
            or values != sorted(values, reverse=True)
            or any(known.get(path, score) != score for path, score in scores.items())
        )

    def milliseconds(self, percentile: float) -> float:
        """Return a percentile of the times."""
        return float(np.percentile(self.seconds, percentile)) * 1000


class _Appending(Background):
    """A thread that makes pictures and has them indexed, some at a time."""

    def __init__(self, server: ServerProcess, photos: Path) -> None:
        super().__init__()
        self._server = server
        self._photos = photos
        self.appended = 0

    def _run(self) -> None:
        chance = np.random.default_rng(3)
        with self._server.client() as client:
            while not self._is_done.wait(_SECONDS_BETWEEN_APPENDS):
                paths: list[str] = []
                for _ in range(_NEW_IMAGES):
                    path = self._photos / f"{self.appended + len(paths):06d}.png"
                    colour = tuple(chance.integers(0, 256, 3).tolist())
                    Image.new("RGB", (64, 48), colour).save(path)
                    paths.append(str(path))
                answer = client.post("/api/v1/index/notify", json={"image_paths": paths})
                job = wait_for_job(client, answer.json()["job_id"], pause_seconds=0.1)
                assert job["status"] == "completed", job
                self.appended += len(paths)


class _Waiting(Background):
    """A thread that waits for the end of a job."""

    def __init__(self, server: ServerProcess, job_id: str) -> None:
        super().__init__()
        self._server = server
        self._job_id = job_id
        self.status: dict[str, object] = {"status": "not known"}

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or nobody waits any more."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        with self._server.client() as client:
            self.status = wait_for_job(client, self._job_id, seconds=7200, pause_seconds=0.5)


class _PeakMemory(Background):
    """Watches the resident memory of a process."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._process = psutil.Process(pid)
        self.peak = 0

    def _run(self) -> None:
        while not self._is_done.wait(0.05):
            self.peak = max(self.peak, self._process.memory_info().rss)
