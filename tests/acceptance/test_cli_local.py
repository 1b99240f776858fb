"""Commands that work on a home directly, as real processes."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import psutil
import pytest

from support.commands import Commands
from support.pictures import draw_pictures
from support.program import RunningProgram
from support.server import ServerProcess
from support.tiny_models import write_tiny_clip

DEADLINE_SECONDS = 60.0


def _wait_for_line(command: RunningProgram, start: str) -> None:
    assert command.stderr is not None
    for line in command.stderr:
        if line.startswith(start):
            return
    raise AssertionError(f"The command ended with {command.wait()} before it told {start!r}.")


def test_a_directory_is_indexed_searched_and_looked_after_without_a_server(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 5)
    commands = Commands.local(tmp_path / "home")

    assert "Nothing is indexed yet" in commands.fresh().run("search", "a circle").stderr
    assert "5 images up to date" in commands.fresh().run("index", photos).stdout
    assert len(commands.fresh().json("search", "a circle", "-k", "3")["results"]) == 3
    assert commands.json("stats")["num_images"] == 5
    generation = commands.json("stats")["generation"]
    assert "5 images up to date" in commands.run("rebuild").stdout
    assert commands.json("stats")["generation"] == generation + 1
    assert len(commands.json("search", "a circle", "-k", "3")["results"]) == 3
    (_, job) = commands.json("jobs")["jobs"]
    assert job["status"] == "completed"
    assert commands.json("keys", "create", "--name", "n", "--scope", "admin")["secret"]
    assert [key["name"] for key in commands.json("keys")["keys"]] == ["n"]


def test_an_index_gets_another_model_without_a_server(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 5)
    commands = Commands.local(tmp_path / "home")
    commands.run("models", "pull", "mine", "--from-dir", write_tiny_clip(tmp_path / "tiny"))
    assert "whose model to change" in commands.fail("models", "use", "mine")
    commands.run("index", photos)
    assert commands.json("stats")["model_name"] == "bundled"
    assert "5 images up to date" in commands.run("models", "use", "mine").stdout
    assert commands.json("stats")["model_name"] == "mine"
    # Whatever IMAGEDEX_MODEL says, which is still the bundled one.
    assert len(commands.json("search", "a circle", "-k", "3")["results"]) == 3
    assert "There is no model 'nothing'" in commands.fail("models", "use", "nothing")
    assert "IMAGEDEX_URL" in commands.run("models", "use", "mine", "--no-wait", code=2).stderr


def test_what_was_never_indexed_cannot_be_rebuilt(tmp_path: Path) -> None:
    assert "index a directory first" in Commands.local(tmp_path / "home").fail("rebuild")


def test_image_roots_that_are_set_are_enforced(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 1)
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    commands = Commands.local(tmp_path / "home", IMAGEDEX_IMAGE_ROOTS=str(allowed))

    assert "IMAGEDEX_IMAGE_ROOTS" in commands.fail("index", photos)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "photoz"

    assert str(missing) in Commands.local(tmp_path / "home").fail("index", missing)


def test_while_a_server_holds_the_home_all_but_indexing_works(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 3)
    with ServerProcess(tmp_path / "home", [photos]) as server:
        Commands.remote(server).run("index", photos)
        commands = Commands.local(server.home)

        assert len(commands.json("search", "a circle")["results"]) == 3
        assert commands.json("stats")["num_images"] == 3
        (job,) = commands.json("jobs")["jobs"]
        assert commands.json("jobs", "show", job["job_id"])["status"] == "completed"
        secret = commands.json("keys", "create", "--name", "n", "--scope", "query")["secret"]
        refused = commands.fail("index", photos)
        assert f"process {server.pid}" in refused
        assert "IMAGEDEX_URL" in refused
        assert "in use" in commands.fail("serve", "--port", "0")
        # A key that was made beside the server works at the server, at once.
        Commands.remote(server, secret).run("search", "a circle")


@pytest.mark.timeout(300)
def test_ctrl_c_keeps_what_is_done_and_the_next_run_finishes_it(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    draw_pictures(first, 64)
    draw_pictures(second, 3, seed=7)
    commands = Commands.local(tmp_path / "home", IMAGEDEX_INDEXING__CHUNK_IMAGES="8")
    indexing = commands.start("index", first)
    _wait_for_line(indexing, "Indexing: ")
    children = psutil.Process(indexing.pid).children(recursive=True)

    indexing.send_signal(signal.SIGINT)
    _, told = indexing.communicate(timeout=DEADLINE_SECONDS)

    assert indexing.returncode == 130
    assert "What is done is kept" in told
    assert "Traceback" not in told
    _, alive = psutil.wait_procs(children, timeout=DEADLINE_SECONDS)
    assert alive == []

    # Another directory next: the unfinished job goes on beside it, in its own directory.
    commands.run("index", second)
    commands.run("index", first)
    stats = commands.json("stats")
    assert (stats["num_images"], stats["num_failed"]) == (67, 0)
    jobs = commands.json("jobs")["jobs"]
    assert {job["status"] for job in jobs} == {"completed"}


def test_sigterm_ends_local_indexing_in_good_order_too(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    draw_pictures(photos, 64)
    commands = Commands.local(tmp_path / "home", IMAGEDEX_INDEXING__CHUNK_IMAGES="8")
    indexing = commands.start("index", photos)
    _wait_for_line(indexing, "Indexing: ")
    children = psutil.Process(indexing.pid).children(recursive=True)
    started = time.monotonic()

    indexing.send_signal(signal.SIGTERM)
    _, told = indexing.communicate(timeout=DEADLINE_SECONDS)

    assert time.monotonic() - started < DEADLINE_SECONDS
    assert indexing.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in told
    assert psutil.wait_procs(children, timeout=DEADLINE_SECONDS)[1] == []
    assert commands.json("jobs")["total"] == 1
