"""Two controllers on one database: one runs the jobs, and the other takes them over."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from imagedex.app import Surgery
from imagedex.core.errors import HomeInUse
from imagedex.settings import Settings
from support.failover import Asker, Pair, found_by, freeze, get, role_of, thaw, wait_for_role
from support.pictures import draw_pictures
from support.postgres import PostgresServer
from support.server import ServerProcess, wait_for_job
from support.waiting import wait_until


def _trigger(server: ServerProcess, photos: Path) -> str:
    with server.client() as client:
        answer = client.post(
            "/api/v1/index/trigger", json={"image_dir": str(photos), "force_reindex": True}
        )
        answer.raise_for_status()
        return str(answer.json()["job_id"])


def _settings(home: Path, url: str, index_prefix: Path) -> Settings:
    return Settings.model_validate(
        {"home": home, "database_url": url, "index_prefix": index_prefix}
    )


def _wait_for_progress(server: ServerProcess, job_id: str) -> None:
    def has_begun() -> bool:
        progress = get(server, f"/index/status/{job_id}")["progress"]
        return bool(progress["processed_images"])

    wait_until(has_begun)


def _wait_until_it_stands_by(server: ServerProcess) -> None:
    wait_until(lambda: role_of(server) == "standby" or not server.is_alive)


def _wait_until_it_finds(server: ServerProcess, images: set[str]) -> None:
    wait_until(lambda: found_by(server) == sorted(images))


def _published_by(server: ServerProcess) -> list[int]:
    """Return the generations that a server's log says it has published."""
    events = [json.loads(line) for line in server.log.read_text().splitlines() if line[:1] == "{"]
    wanted = ("generation_published", "segments_merged", "index_sealed")
    return [event["generation"] for event in events if event["event"] in wanted]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_the_other_controller_goes_on_when_the_leader_is(
    tmp_path: Path, postgres: PostgresServer, fault: str
) -> None:
    photos = tmp_path / "photos"
    images = {str(path) for path in draw_pictures(photos, 80)}
    chance = random.Random(5)
    with postgres.new_database() as url, Pair(tmp_path, url, [photos]) as pair:
        leader = pair.leader()
        with leader.client() as client:
            assert (
                wait_for_job(client, _trigger(pair.other(leader), photos))["status"] == "completed"
            )
        for _ in range(2):
            leader = pair.leader()
            standby = pair.other(leader)
            asker = Asker(standby, images).start()
            job_id = _trigger(standby, photos)
            _wait_for_progress(standby, job_id)
            time.sleep(chance.uniform(0.0, 1.0))
            if fault == "killed":
                leader.kill()
            else:
                freeze(leader)
            wait_for_role(standby, "leader")
            if fault == "frozen":
                published = _published_by(leader)
                thaw(leader)
                # It sees that it was replaced, and stands by; or ends, to be started again.
                _wait_until_it_stands_by(leader)
                assert _published_by(leader) == published
            with standby.client() as client:
                assert wait_for_job(client, job_id)["status"] == "completed"
            assert found_by(standby) == sorted(images)
            if not leader.is_alive:
                leader.start()
            _wait_until_it_finds(leader, images)
            asker.stop()
            assert asker.faults == []
            assert asker.answers > 5
        generations = [get(server, "/index/stats")["generation"] for server in pair.servers]
        assert generations[0] == generations[1]
        published = [number for server in pair.servers for number in _published_by(server)]
        assert len(published) == len(set(published)) > 5
        for server in pair.servers:
            server.stop()
        surgery = Surgery(_settings(tmp_path / "third", url, tmp_path / "index"), None)
        try:
            assert surgery.examine().findings == ()
        finally:
            surgery.close()


@pytest.mark.timeout(300)
def test_a_leader_that_stops_hands_over_at_once(tmp_path: Path, postgres: PostgresServer) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 4)
    with postgres.new_database() as url, Pair(tmp_path, url, [photos]) as pair:
        leader = pair.leader()
        standby = pair.other(leader)
        assert role_of(standby) == "standby"
        surgery = Surgery(_settings(tmp_path / "third", url, tmp_path / "index"), None)
        with pytest.raises(HomeInUse, match=f"at {leader.url}; talk to that server"):
            surgery.repair()
        surgery.close()
        assert leader.stop() == os.EX_OK
        assert wait_for_role(standby, "leader") < 8.0
        with standby.client() as client:
            assert wait_for_job(client, _trigger(standby, photos))["status"] == "completed"
