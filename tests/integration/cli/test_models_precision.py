"""``imagedex models quantize``, ``verify --images`` and ``bench`` on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.models import ModelStore
from imagedex.models.pull import install_directory
from support.commands import Commands
from support.pictures import draw_pictures
from support.tiny_models import write_tiny_clip
from support.watching import RecordingWatcher


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    home = tmp_path / "home"
    tiny = write_tiny_clip(tmp_path / "tiny")
    install_directory("tiny", tiny, store=ModelStore(home / "models"), watcher=RecordingWatcher())
    draw_pictures(tmp_path / "pictures", 14)
    settings = {"IMAGEDEX_HOME": str(home), "IMAGEDEX_INDEXING__THREADS_PER_WORKER": "1"}
    return Commands(settings, in_process=True)


def test_a_model_is_quantised_compared_and_measured(commands: Commands, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    made = commands.json("models", "quantize", "tiny", "--images", pictures, "--method", "dynamic")
    assert (made["method"], made["calibration_images"]) == ("dynamic", 0)
    assert made["agreement"]["images"] == 14
    assert made["agreement"]["mean_cosine"] > 0.9
    assert 0.0 < made["agreement"]["top10_agreement"] <= 1.0
    assert made["fingerprint"].startswith("clip-int8-")

    checked = commands.json("models", "verify", "tiny", "--images", pictures)
    assert checked["faults"] == []
    assert (checked["precision"], checked["failed"]) == ("int8", 0)
    assert checked["agreement"]["mean_cosine"] == pytest.approx(
        made["agreement"]["mean_cosine"], abs=1e-6
    )
    shown = commands.run("models", "verify", "tiny", "--images", pictures, "--count", "5")
    assert "needs 11 pictures" in shown.stdout
    assert "each picture in turn is the query" in shown.stderr

    listed = commands.json("models", "list")["models"]
    assert next(each for each in listed if each["name"] == "tiny")["precisions"][-1] == "int8"

    measured = commands.json("models", "bench", "tiny", "--seconds", "0")
    forms = {(form["runtime"], form["precision"]): form for form in measured["forms"]}
    assert forms["onnxruntime", "int8"]["images"][0]["images_per_second"] > 0
    assert "made for onnxruntime" in forms["openvino", "int8"]["reason"]
    table = commands.run("models", "bench", "tiny", "--seconds", "0").stdout
    for variable in measured["settings"]:
        assert f"{variable}=" in table


def test_making_it_again_says_which_indexes_are_refused_from_now_on(
    commands: Commands, tmp_path: Path
) -> None:
    quantize = ("models", "quantize", "tiny", "--images", tmp_path / "pictures", "--method")
    first = commands.json(*quantize, "dynamic")
    second = commands.run(*quantize, "calibrated", "--count", "5")
    assert f"It replaces {first['fingerprint']}" in second.stderr
    assert "calibrated on      5 pictures" in second.stdout


def test_a_damaged_int8_form_is_found_and_the_command_that_makes_it_again_named(
    commands: Commands, tmp_path: Path
) -> None:
    quantize = ("models", "quantize", "tiny", "--images", tmp_path / "pictures")
    commands.run(*quantize, "--method", "dynamic")
    commands.run("models", "verify", "tiny")
    (graph,) = (tmp_path / "home" / "models" / "tiny" / "visual").glob("model_int8-*.onnx")
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    failed = commands.run("models", "verify", "tiny", code=1)
    assert f"visual/{graph.name} has the right size but other content" in failed.stdout
    assert "imagedex models quantize tiny --images DIR" in failed.stderr


def test_what_cannot_be_done_says_what_can(commands: Commands, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    failed = commands.run("models", "verify", "tiny", "--images", pictures, code=1)
    directory = tmp_path / "home" / "models" / "tiny"
    assert f"imagedex models quantize {directory} --images DIR" in failed.stderr
    failed = commands.run("models", "quantize", "gone", "--images", pictures, code=1)
    assert "'gone' is no installed model" in failed.stderr
    failed = commands.run("models", "quantize", "tiny", "--images", tmp_path / "gone", code=1)
    assert "There is no directory" in failed.stderr
    commands.run("models", "quantize", "tiny", "--images", pictures, "--count", "0", code=2)
