"""Which models are installed, and how they go."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.core.errors import ModelError, NotFound
from imagedex.embedding.clip.int8_record import Int8Record, QuantisationMethod
from imagedex.embedding.clip.lock_file import LOCK_FILE, LockedFile
from imagedex.models import InstalledModel, ModelStore
from imagedex.models.listing import ModelState, list_models
from imagedex.models.verification import file_faults
from support.watching import RecordingWatcher


def test_a_home_without_models_has_none(store: ModelStore) -> None:
    assert store.names() == ()
    assert store.find("tiny") is None
    with pytest.raises(NotFound, match="there are: none"):
        store.get("tiny")
    assert not store.directory.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "-x", "a" * 101, "ä", "bundled"])
def test_a_name_that_is_no_directory_name_is_refused(store: ModelStore, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be the name"):
        store.directory_of(name)
    assert store.find(name) is None


def test_an_installed_model_is_found_with_its_lock(
    store: ModelStore, installed: InstalledModel
) -> None:
    assert store.names() == ("tiny",)
    assert store.get("tiny") == installed
    assert {file.path for file in installed.lock.files} == {
        path.relative_to(installed.directory).as_posix()
        for path in installed.directory.rglob("*")
        if path.is_file() and path.name != LOCK_FILE
    }


def test_a_directory_without_a_lock_file_is_no_installed_model(
    store: ModelStore, installed: InstalledModel
) -> None:
    (installed.directory / LOCK_FILE).unlink()
    assert store.find("tiny") is None


def test_a_removed_model_is_gone_with_all_its_files(
    store: ModelStore, installed: InstalledModel
) -> None:
    size = sum(file.bytes for file in installed.lock.files)
    assert store.remove("tiny", RecordingWatcher()) == size
    assert store.names() == ()
    assert not installed.directory.exists()
    with pytest.raises(NotFound):
        store.remove("tiny", RecordingWatcher())


def test_a_model_whose_lock_file_is_damaged_can_be_removed(
    store: ModelStore, installed: InstalledModel
) -> None:
    (installed.directory / LOCK_FILE).write_text("{")
    with pytest.raises(ModelError):
        store.get("tiny")
    assert store.remove("tiny", RecordingWatcher()) > 0
    assert store.names() == ()


def test_files_that_changed_or_went_are_named(installed: InstalledModel) -> None:
    assert list(file_faults(installed)) == []
    names = ("config.json", "textual/tokenizer.json", "visual/preprocess_cfg.json")
    gone, longer, changed = (installed.directory / name for name in names)
    gone.unlink()
    # The files are perhaps those of the directory that they were linked from.
    content = changed.read_bytes()
    longer.write_bytes(longer.read_bytes() + b" ")
    changed.write_bytes(b" " * len(content))
    problems = {fault.path: fault.problem for fault in file_faults(installed)}
    assert set(problems) == set(names)
    assert problems[names[0]] == "is missing"
    assert "bytes instead of" in problems[names[1]]
    assert problems[names[2]] == "has the right size but other content"


def test_the_list_has_what_is_known_and_what_is_installed(
    store: ModelStore, installed: InstalledModel
) -> None:
    listed = {model.name: model for model in list_models(store)}
    assert listed["bundled"].state is ModelState.BUNDLED
    assert listed["clip-ViT-L-14"].state is ModelState.NOT_INSTALLED
    assert listed["clip-ViT-L-14"].bytes is None
    tiny = listed["tiny"]
    assert (tiny.state, tiny.dim) == (ModelState.INSTALLED, 32)
    assert tiny.precisions == ("fp32", "bf16")
    record = Int8Record(
        QuantisationMethod.DYNAMIC, (LockedFile("model_int8_1.onnx", 1, "0" * 64, 1),), 0, {}
    )
    for folder in ("visual", "textual"):
        (installed.directory / folder / "model_int8.json").write_text(record.to_json())
    listed = {model.name: model for model in list_models(store)}
    assert listed["tiny"].precisions == ("fp32", "bf16", "int8")


def test_a_damaged_model_does_not_hide_the_others(
    store: ModelStore, installed: InstalledModel
) -> None:
    (installed.directory / "config.json").unlink()
    listed = {model.name: model for model in list_models(store)}
    assert listed["tiny"].state is ModelState.DAMAGED
    assert "config.json" in str(listed["tiny"].problem)
    assert len(listed) > 3


def test_two_directories_of_one_store_do_not_mix(tmp_path: Path, installed: InstalledModel) -> None:
    assert ModelStore(tmp_path / "elsewhere").find(installed.name) is None
