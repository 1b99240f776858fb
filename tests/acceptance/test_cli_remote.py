"""Commands that talk to a real server over HTTP."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import Commands
from support.pictures import draw_pictures
from support.program import COMMAND
from support.server import ServerProcess, wait_for_job

HOSTILE = "\x1b]0;owned\x07[red]x\u202e.png"
GOOD = 6


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory of good and broken images, one with a hostile name."""
    photos = tmp_path_factory.mktemp("photos")
    first, *_ = draw_pictures(photos, GOOD - 1)
    (photos / HOSTILE).write_bytes(first.read_bytes())
    (photos / "empty.png").touch()
    (photos / "text.jpg").write_text("not an image")
    return photos


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Iterator[ServerProcess]:
    """Return a server that has indexed those images."""
    home = tmp_path_factory.mktemp("server") / "home"
    with ServerProcess(home, [photos]) as server:
        Commands.remote(server).run("index", photos)
        yield server


@pytest.fixture
def commands(server: ServerProcess) -> Commands:
    """Return commands that talk to it with the admin key."""
    return Commands.remote(server, in_process=True)


def test_indexing_tells_what_failed_and_why_and_succeeds_nevertheless(
    commands: Commands, photos: Path
) -> None:
    told = commands.run("index", photos, "--force", "--priority", "high")

    assert f"{GOOD} images up to date, 2 failed" in told.stdout
    assert f"    {photos / 'empty.png'}: " in told.stdout
    assert "not_an_image: 1 image" in told.stdout
    assert "Completed: 8 of 8 images, 100 %" in told.stderr
    document = commands.json("index", photos)
    assert document["status"] == "completed"
    assert document["failures_by_reason"] == {"empty": 1, "not_an_image": 1}


def test_searching_ranks_images_and_escapes_hostile_file_names(
    commands: Commands, photos: Path
) -> None:
    document = commands.json("search", "coloured shapes", "-k", "50")
    assert [result["rank"] for result in document["results"]] == list(range(1, GOOD + 1))
    assert str(photos / HOSTILE) in [result["image_path"] for result in document["results"]]

    header, *rows = commands.run("search", "coloured shapes", "-k", "50").stdout.splitlines()
    assert header == "rank\tscore\tpath"
    assert len(rows) == GOOD
    assert any(r"\x1b]0;owned\x07[red]x\u202e.png" in row for row in rows)


def test_on_a_terminal_a_table_is_drawn_and_hostile_file_names_stay_harmless(
    commands: Commands,
) -> None:
    screen, terminal = pty.openpty()
    try:
        subprocess.run(
            [*COMMAND, "search", "coloured shapes"],
            env={**commands.environment, "TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
            check=True,
        )
        drawn = os.read(screen, 100_000).decode()
    finally:
        os.close(terminal)
        os.close(screen)
    assert "rank" in drawn
    assert "\t" not in drawn
    assert "\x1b]0;" not in drawn
    assert r"\x1b]0;owned\x07[red]x\u202e.png" in drawn


def test_files_can_come_and_go_one_by_one(commands: Commands, photos: Path) -> None:
    (new,) = draw_pictures(photos / "new", 1, seed=99)
    commands.run("index", new)
    assert commands.json("stats")["num_images"] == GOOD + 1

    new.unlink()
    commands.run("index", new, photos / "empty.png")
    assert commands.json("stats")["num_images"] == GOOD


def test_a_job_that_is_left_to_the_server_goes_on_by_itself(
    commands: Commands, server: ServerProcess, photos: Path
) -> None:
    receipt = commands.json("index", photos, "--no-wait", "--force")

    with server.client() as client:
        assert wait_for_job(client, receipt["job_id"])["status"] == "completed"
    job_id = commands.run("index", photos, "--no-wait").stdout.strip()
    assert commands.json("jobs", "show", job_id)["job_id"] == job_id


def test_a_scan_passes_over_what_its_command_names(commands: Commands, photos: Path) -> None:
    before = commands.json("index", photos)["progress"]["total_images"]
    after = commands.json("index", photos, "--ignore", "empty.*", "--ignore", "*.gone")
    assert after["progress"]["total_images"] == before - 1
    assert "matches no file" in commands.fail("index", photos, "--ignore", "../x")


def test_jobs_are_listed_shown_retried_and_refused(commands: Commands, photos: Path) -> None:
    job_id = commands.json("index", photos)["job_id"]

    listed = commands.json("jobs", "list", "--status", "completed", "--limit", "1")
    assert listed["jobs"][0]["job_id"] == job_id
    assert job_id in commands.run("jobs").stdout
    assert "status    completed\n" in commands.run("jobs", "show", job_id).stdout
    failures = commands.json("jobs", "failures", job_id)
    assert [failure["reason"] for failure in failures["failures"]] == ["empty", "not_an_image"]
    assert "empty\t" in commands.run("jobs", "failures", job_id).stdout
    assert "completed" in commands.fail("jobs", "cancel", job_id)
    assert commands.json("jobs", "retry", job_id)["job_id"] == job_id
    assert "idx_20200101_000000_abcd" in commands.fail("jobs", "show", "idx_20200101_000000_abcd")


def test_statistics_are_told_for_people_and_programs(commands: Commands) -> None:
    assert commands.json("stats")["model_name"] == "bundled"
    told = commands.run("stats").stdout
    assert f"images        {GOOD}\n" in told
    assert "bundled, 384 dimensions" in told


def test_a_key_does_what_its_scopes_say_until_it_is_revoked(
    commands: Commands, server: ServerProcess, photos: Path
) -> None:
    told = commands.run("keys", "create", "--name", "search page", "--scope", "query")
    secret = told.stdout.strip()
    holder = Commands.remote(server, secret, in_process=True)
    holder.run("search", "a circle")
    assert "index" in holder.fail("index", photos)
    assert "admin" in holder.fail("keys", "list")

    (key,) = [key for key in commands.json("keys")["keys"] if key["name"] == "search page"]
    assert key["scopes"] == ["query"]
    assert secret not in commands.run("keys", "list").stdout
    commands.run("keys", "revoke", key["key_id"])
    assert "key" in holder.fail("search", "a circle")
    assert "revoked\tsearch page" in commands.run("keys").stdout


def test_the_server_enforces_its_image_roots(commands: Commands, tmp_path: Path) -> None:
    assert "IMAGEDEX_IMAGE_ROOTS" in commands.fail("index", tmp_path)
    assert "IMAGEDEX_IMAGE_ROOTS" in commands.fail("index", tmp_path / "a.png")
    assert str(tmp_path) in commands.fail("stats", "--index-prefix", tmp_path)


def test_a_reader_of_the_pipe_may_go_at_any_time(commands: Commands) -> None:
    search = commands.start("search", "coloured shapes", "--json")
    assert search.stdout is not None
    assert search.stderr is not None
    search.stdout.close()
    errors = search.stderr.read()
    search.stderr.close()
    search.wait()

    assert errors == ""


def test_as_a_process_of_its_own_a_command_writes_pure_json_and_leaves_the_home_alone(
    server: ServerProcess, photos: Path
) -> None:
    commands = Commands.remote(server)

    assert commands.json("index", photos)["status"] == "completed"
    assert "IMAGEDEX_IMAGE_ROOTS" in commands.fail("index", photos.parent)
    assert not Path(commands.environment["IMAGEDEX_HOME"]).exists()


def test_a_search_is_narrowed_composed_paged_and_done_by_a_picture(
    commands: Commands, photos: Path, tmp_path: Path
) -> None:
    def found(*options: str | Path) -> list[str]:
        document = commands.json("search", *options)
        return [Path(result["image_path"]).name for result in document["results"]]

    everything = found("coloured shapes", "-k", "50")
    assert found("coloured shapes", "--path", photos, "-k", "50") == everything
    assert found("coloured shapes", "--path", photos / "nowhere") == []
    assert "No image matches." in commands.run("search", "x", "--glob", "*.tiff").stderr
    assert found("coloured shapes", "--after", "2100-01-01") == []
    assert found("coloured shapes", "--before", "2100-01-01", "-k", "50") == everything
    assert found("coloured shapes", "--min-score", "1") == []

    document = commands.json("search", "coloured shapes", "-k", "4")
    rest = found("coloured shapes", "-k", "4", "--cursor", document["next_cursor"])
    assert everything == [Path(r["image_path"]).name for r in document["results"]] + rest

    first = document["results"][0]
    like = commands.json("search", "--like", first["image_id"], "-k", "50")["results"]
    assert first["image_path"] not in [result["image_path"] for result in like]
    assert len(like) == GOOD - 1
    by_file = commands.json("search", "--like", first["image_path"], "-k", "1")["results"]
    assert by_file[0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert len(found("shapes", "--not", "red", "--like", first["image_id"])) == GOOD - 1

    # One of the images is there twice, under another name.
    header, *rows = commands.run(
        "search", "coloured shapes", "-k", "50", "--distinct"
    ).stdout.splitlines()
    assert header == "rank\tscore\timages\tpath"
    assert sum(int(row.split("\t")[2]) for row in rows) == GOOD
    assert len(rows) < GOOD

    (tmp_path / "letter.jpg").write_text("Dear Sir or Madam,")
    assert "not_an_image" in commands.fail("search", "--like", str(tmp_path / "letter.jpg"))
    assert "neither the id" in commands.fail("search", "--like", str(tmp_path / "nothing"))
    assert "nothing to look for" in commands.run("search", code=2).stderr
