"""Doctor, snapshots and backups as real processes, beside a real server."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from support.commands import Commands
from support.pictures import draw_pictures
from support.server import ServerProcess
from support.waiting import wait_until

# Even of few images, so that one can be damaged.
FAISS_FILES = {"IMAGEDEX_SEARCH__FLAT_MIN_ROWS": "1"}


def test_the_doctor_finds_a_healthy_index_healthy_and_a_damaged_one_not(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 3)
    commands = Commands.local(tmp_path / "home")
    assert "Nothing is indexed" in commands.run("doctor").stdout
    with ServerProcess(tmp_path / "home", [photos], FAISS_FILES) as server:
        Commands.remote(server).run("index", photos)
        assert commands.run("doctor").stdout.startswith("Healthy: generation 1 with 3 images")
    healthy = commands.json("doctor")
    assert (healthy["healthy"], healthy["num_images"], healthy["findings"]) == (True, 3, [])
    (faiss,) = (tmp_path / "home" / "index" / "segments").glob("*.faiss")
    faiss.unlink()
    found = commands.json("doctor", code=1)
    assert not found["healthy"]
    assert [finding["path"] for finding in found["findings"]] == [str(faiss)]
    told = commands.run("doctor", code=1).stdout
    assert told.startswith("faiss: ")
    assert "1 finding." in told


def test_an_index_whose_database_was_deleted_is_repaired_and_served(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 3)
    home = tmp_path / "home"
    commands = Commands.local(home)
    with ServerProcess(home, [photos], FAISS_FILES) as server:
        Commands.remote(server).run("index", photos)
        (faiss,) = (home / "index" / "segments").glob("*.faiss")
        faiss.unlink()
        assert f"process {server.pid}" in commands.fail("doctor", "--repair")
        # The generation that is open goes on answering.
        assert len(Commands.remote(server).json("search", "a circle")["results"]) == 3
    for path in home.glob("imagedex.db*"):
        path.unlink()
    repaired = commands.json("doctor", "--repair")
    assert repaired["healthy"]
    assert len(repaired["actions"]) >= 3
    assert faiss.exists()
    assert commands.json("doctor", "--repair")["actions"] == []
    with ServerProcess(home, [photos], FAISS_FILES) as server:
        assert len(Commands.remote(server).json("search", "a circle")["results"]) == 3
        assert commands.json("stats")["num_images"] == 3
        Commands.remote(server).run("index", photos)


def test_a_snapshot_is_kept_beside_a_server_and_restored_without_it(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 3)
    home = tmp_path / "home"
    commands = Commands.local(home)
    with ServerProcess(home, [photos], FAISS_FILES) as server:
        remote = Commands.remote(server)
        remote.run("index", photos)
        made = commands.json("snapshot", "create", "before")
        assert (made["name"], made["num_images"], made["generation"]) == ("before", 3, 1)
        assert remote.json("snapshot", "list") == commands.json("snapshot", "list")
        assert "unset IMAGEDEX_URL" in remote.fail("rollback")
        draw_pictures(photos, 5, seed=7)
        remote.run("index", photos)
        images = commands.json("stats")["num_images"]
        assert images > 3
        assert f"process {server.pid}" in commands.fail("snapshot", "restore", "before")
        assert f"process {server.pid}" in commands.fail("rollback")
    assert [s["name"] for s in commands.json("snapshot", "list")["snapshots"]] == ["before"]
    assert "before" in commands.run("snapshot", "list").stdout
    assert commands.json("snapshot", "restore", "before") == {"generation": 3, "num_images": 3}
    assert commands.json("rollback", "2") == {"generation": 4, "num_images": images}
    assert "with 3 images" in commands.run("rollback").stdout
    assert commands.json("doctor")["healthy"]
    assert "deleted" in commands.run("snapshot", "delete", "before").stdout
    assert "snapshot list" in commands.fail("snapshot", "restore", "before")
    with ServerProcess(home, [photos], FAISS_FILES) as server:
        assert len(Commands.remote(server).json("search", "a circle")["results"]) == 3
        assert commands.json("stats")["generation"] == 5


def test_a_server_makes_and_brings_back_snapshots_for_its_clients(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 3)
    home = tmp_path / "home"
    with ServerProcess(home, [photos]) as server:
        remote = Commands.remote(server)
        remote.run("index", photos)
        made = remote.json("snapshot", "create", "before")
        assert (made["name"], made["num_images"], made["generation"]) == ("before", 3, 1)
        assert remote.json("snapshot", "list") == {"snapshots": [made], "damaged": []}
        assert "choose another name" in remote.fail("snapshot", "create", "before")
        draw_pictures(photos, 5, seed=7)
        remote.run("index", photos)
        assert remote.json("stats")["num_images"] > 3
        restored = remote.json("snapshot", "restore", "before")
        assert restored == {"generation": 3, "num_images": 3}
        assert len(remote.json("search", "a circle")["results"]) == 3
        remote.run("snapshot", "restore", "before", "--recreate", code=2)
        assert "deleted" in remote.run("snapshot", "delete", "before").stdout
        assert "no snapshot" in remote.fail("snapshot", "restore", "before")
        assert Commands.local(home).json("doctor")["healthy"]
        remote.run("index", photos)
        assert remote.json("stats")["num_images"] > 3


def test_the_restore_drill_brings_index_keys_and_jobs_back(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 3)
    home = tmp_path / "home"
    commands = Commands.local(home)
    with ServerProcess(home, [photos], FAISS_FILES) as server:
        Commands.remote(server).run("index", photos)
        secret = commands.json("keys", "create", "--name", "n", "--scope", "query")["secret"]
    commands.run("snapshot", "create", "drill")
    # As if the server had been down at the time of the backup.
    with closing(sqlite3.connect(home / "imagedex.db")) as database, database:
        database.execute("UPDATE schedules SET due_at = 1 WHERE name = 'backup'")
    with ServerProcess(home, [photos]):
        wait_until(lambda: any((home / "backups").glob("imagedex-*.db")))
    for path in home.glob("imagedex.db*"):
        path.unlink()
    (home / "index").rename(tmp_path / "lost")
    (backup,) = (home / "backups").iterdir()
    shutil.copy(backup, home / "imagedex.db")
    assert "--recreate" in commands.run("snapshot", "restore", "--help").stdout
    assert "Mount its storage" in commands.fail("snapshot", "restore", "drill")
    assert commands.json("snapshot", "restore", "drill", "--recreate")["num_images"] == 3
    assert commands.run("doctor").stdout.startswith("Healthy: ")
    with ServerProcess(home, [photos], FAISS_FILES) as server:
        assert len(Commands.remote(server, secret).json("search", "a circle")["results"]) == 3
        before = commands.json("stats")["generation"]
        Commands.remote(server).run("index", photos)
        assert commands.json("stats")["generation"] == before  # Nothing was embedded again.
        kinds = [job["kind"] for job in commands.json("jobs")["jobs"]]
        assert kinds == ["full", "backup", "full"]
