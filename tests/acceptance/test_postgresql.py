"""A server on PostgreSQL does what one on SQLite does, also when either of them is killed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from support.commands import Commands
from support.pictures import draw_pictures
from support.postgres import PASSWORD, PostgresServer
from support.server import ServerProcess, wait_for_job
from support.waiting import wait_until


@pytest.fixture
def postgres_of_its_own() -> Iterator[PostgresServer]:
    """A server that keeps what was committed, to be killed."""
    server = PostgresServer(is_durable=True)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _processed(client: httpx.Client, job_id: str) -> int:
    answer = client.get(f"/api/v1/index/status/{job_id}")
    if answer.status_code == 503:
        return 0  # The database is away.
    answer.raise_for_status()
    return int(answer.json()["progress"]["processed_images"])


def _wait_for_more(client: httpx.Client, job_id: str, before: int) -> None:
    deadline = time.monotonic() + 120
    while _processed(client, job_id) <= before:
        assert time.monotonic() < deadline, "The job made no progress in two minutes."
        time.sleep(0.02)


def _found(client: httpx.Client) -> list[str]:
    answer = client.post("/api/v1/query", json={"text": "a picture", "top_k": 1000})
    answer.raise_for_status()
    return sorted(result["image_path"] for result in answer.json()["results"])


@pytest.mark.timeout(300)
def test_a_controller_on_postgresql_loses_nothing_when_it_or_the_database_is_killed(
    tmp_path: Path, postgres_of_its_own: PostgresServer
) -> None:
    photos = tmp_path / "photos"
    images = sorted(str(path) for path in draw_pictures(photos, 120))
    with postgres_of_its_own.new_database() as url:
        settings = {
            "IMAGEDEX_DATABASE_URL": url,
            "IMAGEDEX_INDEX_PREFIX": str(tmp_path / "share" / "index"),
            "IMAGEDEX_INDEXING__CHUNK_IMAGES": "4",
            "IMAGEDEX_INDEXING__COMMIT_SECONDS": "0.5",
        }
        server = ServerProcess(tmp_path / "home", [photos], settings)
        server.start()
        try:
            with server.client() as client:
                asked = client.post("/api/v1/index/trigger", json={"image_dir": str(photos)})
                job_id = asked.raise_for_status().json()["job_id"]
                _wait_for_more(client, job_id, 0)
                server.kill()
            server.start()
            with server.client() as client:
                before = _processed(client, job_id)
                assert 0 < before < len(images)
                _wait_for_more(client, job_id, before)
                postgres_of_its_own.stop(signal.SIGKILL)
                postgres_of_its_own.start()
                # Whoever asks meets connections that broke, and is told to try again.
                wait_until(lambda: _processed(client, job_id) > 0)
                ended = wait_for_job(client, job_id)
                assert ended["status"] == "completed", ended
                assert _found(client) == images

                late = draw_pictures(photos / "late", 1, seed=7)
                asked = client.post(
                    "/api/v1/index/notify", json={"image_paths": [str(path) for path in late]}
                )
                asked.raise_for_status()
                assert wait_for_job(client, asked.json()["job_id"])["status"] == "completed"
                assert _found(client) == sorted([*images, *map(str, late)])
                asked = client.post("/api/v1/index/rebuild", json={})
                asked.raise_for_status()
                assert wait_for_job(client, asked.json()["job_id"])["status"] == "completed"
                made = client.post("/api/v1/keys", json={"name": "reader", "scopes": ["query"]})
                made.raise_for_status()
                reader = Commands.remote(server, made.json()["secret"])
                answer = reader.run("search", "a picture", "--top-k", "3", "--json")
                assert len(json.loads(answer.stdout)["results"]) == 3
            _expect_no_password_in_command_lines()
        finally:
            server.stop()
        local = Commands.local(server.home, **settings)
        diagnosis = json.loads(local.run("doctor", "--json").stdout)
        assert diagnosis["findings"] == []
        with postgres_of_its_own.new_database() as other_url:
            # A database that was lost, or one to move to.
            anew = Commands.local(server.home, **{**settings, "IMAGEDEX_DATABASE_URL": other_url})
            repaired = json.loads(anew.run("doctor", "--repair", "--json").stdout)
            assert repaired["findings"] == []
            assert any(f"{len(images) + 1} images" in action for action in repaired["actions"])
        assert "database_not_backed_up" in server.log.read_text()
        assert PASSWORD not in server.log.read_text()
        assert quote(PASSWORD, safe="") not in server.log.read_text()
        assert not list(server.home.glob("*.db*"))


def _expect_no_password_in_command_lines() -> None:
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert any(b"imagedex" in line for line in lines)
    for secret in (PASSWORD, quote(PASSWORD, safe="")):
        assert not any(secret.encode() in line for line in lines)
