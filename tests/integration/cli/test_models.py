"""``imagedex models`` on a home of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import Commands
from support.model_hub import COMMIT, ModelHubServer, model_hub, read_files
from support.pictures import draw_pictures
from support.tiny_models import write_tiny_clip


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHubServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with model_hub() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def commands(home: Path) -> Commands:
    return Commands({"IMAGEDEX_HOME": str(home)}, in_process=True)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_clip(tmp_path / "tiny")


def test_the_list_shows_known_models_on_a_home_that_is_not_there(
    commands: Commands, home: Path
) -> None:
    listed = {model["name"]: model for model in commands.json("models", "list")["models"]}
    assert listed["bundled"]["state"] == "bundled"
    assert listed["clip-ViT-L-14"]["state"] == "not installed"
    assert listed["clip-ViT-L-14"]["dim"] == 768
    assert not home.exists()
    table = commands.run("models").stdout
    assert "clip-ViT-L-14-multilingual\tnot installed" in table


def test_a_directory_is_installed_listed_checked_and_removed(
    commands: Commands, home: Path, tiny: Path
) -> None:
    pulled = commands.json("models", "pull", "mine", "--from-dir", tiny)
    assert pulled["directory"] == str(home / "models" / "mine")
    assert pulled["sources"] == []
    assert home.stat().st_mode & 0o777 == 0o700
    listed = {model["name"]: model for model in commands.json("models", "list")["models"]}
    assert listed["mine"]["state"] == "installed"
    assert listed["mine"]["bytes"] == pulled["bytes"]
    assert commands.json("models", "verify", "mine")["faults"] == []
    assert "as installed" in commands.run("models", "verify", "mine").stdout
    assert commands.json("models", "remove", "mine")["removed_bytes"] == pulled["bytes"]
    assert "there are: none" in commands.fail("models", "verify", "mine")


def test_a_damaged_file_is_found_and_the_remedy_named(
    commands: Commands, home: Path, tiny: Path
) -> None:
    commands.run("models", "pull", "mine", "--from-dir", tiny)
    (home / "models" / "mine" / "config.json").unlink()
    done = commands.run("models", "verify", "mine", code=1)
    assert "config.json is missing" in done.stdout
    assert "imagedex models pull mine --force --from-dir DIR" in done.stderr


def test_a_pull_from_a_hub_tells_what_came_from_where(
    home: Path, tiny: Path, server: ModelHubServer
) -> None:
    server.add("someone/tiny-clip", read_files(tiny))
    # A process of its own: the library reads the address of the hub when it is imported.
    commands = Commands({"IMAGEDEX_HOME": str(home), "HF_ENDPOINT": server.url})
    done = commands.run("models", "pull", "someone/tiny-clip")
    assert f"someone/tiny-clip at {COMMIT}" in done.stdout
    assert "text axis" in done.stdout
    assert f"main is commit {COMMIT}" in done.stderr
    assert "IMAGEDEX_MODEL=tiny-clip" in done.stderr


def test_a_pull_without_a_network_ends_with_what_to_do(home: Path) -> None:
    commands = Commands({"IMAGEDEX_HOME": str(home), "HF_ENDPOINT": "http://127.0.0.1:9"})
    error = commands.fail("models", "pull", "clip-ViT-B-32")
    assert "imagedex models pull clip-ViT-B-32 --from-dir DIR" in error


def test_a_directory_has_no_revisions(commands: Commands, tiny: Path) -> None:
    done = commands.run("models", "pull", "mine", "--from-dir", tiny, "--revision", "main", code=2)
    assert "--revision" in done.stderr


def test_a_model_that_is_not_installed_stops_a_command_with_the_way_to_get_it(
    home: Path, tmp_path: Path
) -> None:
    commands = Commands(
        {"IMAGEDEX_HOME": str(home), "IMAGEDEX_MODEL": "clip-ViT-L-14"}, in_process=True
    )
    draw_pictures(tmp_path / "photos", 1)
    assert "imagedex models pull clip-ViT-L-14" in commands.fail("index", tmp_path / "photos")
