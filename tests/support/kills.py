"""Kill a server again and again while it indexes, and hold what it serves against the truth."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from support.server import ServerProcess, wait_for_job


@dataclass
class KillReport:
    """What a run of kills showed; a sound server leaves ``faults`` empty."""

    kills: int = 0
    jobs_completed: int = 0
    faults: list[str] = field(default_factory=list)


def index_under_kills(
    server: ServerProcess, folder: Path, images: set[str], *, kills: int, seed: int
) -> KillReport:
    """Index ``folder`` over and over; kill the server ``kills`` times at random moments.

    ``images`` are the paths of all good images of the folder, at most 1,000, so that one query
    can return them all. After each restart every answer must come from a generation that is
    not older than the newest one seen before. When a job has ended, a query must find each
    image exactly once; then a forced re-index begins the next job.
    """
    assert len(images) <= 1000
    chance = random.Random(seed)
    report = KillReport()
    newest = 0
    job_seconds = 15.0
    server.start()
    while report.kills < kills:
        job_id = _trigger(server, folder)
        began = time.monotonic()
        while report.kills < kills:
            moment = time.monotonic() + chance.uniform(0.0, job_seconds)
            ended = False
            while time.monotonic() < moment and not ended:
                newest = _watch(server, images, newest, report)
                ended = _status(server, job_id)["status"] in ("completed", "failed", "cancelled")
            if ended:
                job_seconds = max(1.0, time.monotonic() - began)
                break
            server.kill()
            report.kills += 1
            server.start()
            newest = _watch(server, images, newest, report)
        with server.client() as client:
            last = wait_for_job(client, job_id)
        if last["status"] == "completed":
            report.jobs_completed += 1
        else:
            report.faults.append(f"job {job_id} ended {last['status']}: {last['error']}")
        _expect_each_once(server, images, report)
    server.stop()
    return report


def _trigger(server: ServerProcess, folder: Path) -> str:
    with server.client() as client:
        answer = client.post(
            "/api/v1/index/trigger", json={"image_dir": str(folder), "force_reindex": True}
        )
        answer.raise_for_status()
        job_id: str = answer.json()["job_id"]
        return job_id


def _status(server: ServerProcess, job_id: str) -> dict[str, Any]:
    with server.client() as client:
        answer = client.get(f"/api/v1/index/status/{job_id}")
        answer.raise_for_status()
        status: dict[str, Any] = answer.json()
        return status


def _watch(server: ServerProcess, images: set[str], newest: int, report: KillReport) -> int:
    """Look at the statistics, then ask a query: what it finds must fit what was published."""
    with server.client() as client:
        before = _generation(client)
        found = _found(client)
        after = _generation(client)
    if before < newest:
        report.faults.append(f"generation went back from {newest} to {before}")
    if len(found) != len(set(found)):
        report.faults.append(f"an image was found twice in generation {before}..{after}")
    if not set(found) <= images:
        report.faults.append(f"an unknown image was found: {min(set(found) - images)}")
    if report.jobs_completed and len(found) < len(images):
        report.faults.append(f"only {len(found)} of {len(images)} found while indexing them again")
    return max(newest, after)


def _expect_each_once(server: ServerProcess, images: set[str], report: KillReport) -> None:
    with server.client() as client:
        found = _found(client)
        total = client.get("/api/v1/index/stats").json()["num_images"]
    if sorted(found) != sorted(images):
        report.faults.append(f"{len(found)} found, {len(set(found))} of {len(images)} images")
    if total != len(images):
        report.faults.append(f"num_images is {total}, not {len(images)}")


def _generation(client: httpx.Client) -> int:
    answer = client.get("/api/v1/index/stats")
    answer.raise_for_status()
    generation: int = answer.json()["generation"]
    return generation


def _found(client: httpx.Client) -> list[str]:
    answer = client.post("/api/v1/query", json={"text": "a picture", "top_k": 1000})
    answer.raise_for_status()
    return [result["image_path"] for result in answer.json()["results"]]
