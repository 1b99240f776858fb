"""What the doctor can make good from the Parquet files, and what it says when it cannot."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from imagedex.core.errors import HomeInUse
from imagedex.database import HomeLock
from imagedex.segments import DirectoryIndexFiles, FindingKind, Manifest
from imagedex.testing.index_files import found_hits, live_locations, unit_vectors
from support.committing import StartProcess
from support.controller import Controller
from support.damage import DAMAGES, cut, delete
from support.forging import forge
from support.repairing import die_in_repair, surgery_of
from support.structures import faiss_of

NAMES = ["black.png", "blue.png", "green.png", "red.png", "white.png", "yellow.png"]


def _repair(home: Path) -> list[str]:
    surgery = surgery_of(home)
    try:
        return surgery.repair()
    finally:
        surgery.close()


def _kinds(home: Path) -> list[FindingKind]:
    surgery = surgery_of(home)
    try:
        return [finding.kind for finding in surgery.examine().findings]
    finally:
        surgery.close()


def _current(home: Path) -> Manifest:
    manifest = DirectoryIndexFiles(home / "index").current()
    assert manifest is not None
    return manifest


def _delete_database(home: Path) -> None:
    for path in home.glob("imagedex.db*"):
        path.unlink()


def _assert_all_found_and_goes_on(home: Path) -> None:
    """Let a new controller find each photo once, have nothing to embed, and take a new one."""
    controller = Controller(home)
    controller.runner.start()
    try:
        before = controller.generation
        assert sorted(controller.find("any")) == NAMES
        controller.index()
        assert controller.generation == before  # Nothing was embedded again.
        controller.paint("new.png", "pink")
        controller.index()
        assert controller.generation > before
        assert sorted(controller.find("any")) == sorted([*NAMES, "new.png"])
        (controller.photos / "new.png").unlink()
    finally:
        controller.close()


def test_a_healthy_index_is_left_as_it_is(controller: Controller, tmp_path: Path) -> None:
    controller.close()
    before = {path: path.stat().st_mtime_ns for path in controller.prefix.rglob("*")}
    _repair(tmp_path)
    kept = {path: stamp for path, stamp in before.items() if "parts" not in path.parts}
    assert {path: path.stat().st_mtime_ns for path in kept if path.name != "LOCK"} == {
        path: stamp for path, stamp in kept.items() if path.name != "LOCK"
    }


def test_a_deleted_database_is_restored_from_the_parquet_files(
    controller: Controller, tmp_path: Path
) -> None:
    index = controller.catalog.get_index(controller.prefix)
    assert index is not None
    paths = [str(controller.photos / name) for name in NAMES]
    before = controller.catalog.lookup(index.index_id, paths)
    controller.close()
    _delete_database(tmp_path)
    actions = _repair(tmp_path)
    assert any("made anew" in action for action in actions)
    assert any("6 images, from the Parquet files" in action for action in actions)
    assert _kinds(tmp_path) == []
    again = Controller(tmp_path)
    index = again.catalog.get_index(again.prefix)
    assert index is not None
    assert again.catalog.lookup(index.index_id, paths) == before
    again.close()
    _assert_all_found_and_goes_on(tmp_path)


def test_a_damaged_database_is_kept_aside_and_made_anew(
    controller: Controller, tmp_path: Path
) -> None:
    controller.close()
    data = bytearray(controller.database_file.read_bytes())
    data[4096 * 3 : 4096 * 9] = os.urandom(4096 * 6)
    controller.database_file.write_bytes(data)
    actions = _repair(tmp_path)
    (kept,) = tmp_path.glob("imagedex.db.damaged-*")
    assert any(str(kept) in action for action in actions)
    assert kept.read_bytes() == bytes(data)
    assert _kinds(tmp_path) == []
    _assert_all_found_and_goes_on(tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_search_structure_is_made_again_in_its_place(
    controller: Controller, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    controller.close()
    manifest = _current(tmp_path)
    path = controller.prefix / faiss_of(manifest.segments[0]).name
    whole = path.read_bytes()
    reader = DirectoryIndexFiles(controller.prefix).open(manifest, None)
    query = unit_vectors(1, manifest.dim)[0]
    hits = found_hits(reader, query, 6)
    damage(path)
    (action, *_) = _repair(tmp_path)
    assert faiss_of(manifest.segments[0]).name in action
    assert path.read_bytes() == whole
    assert _current(tmp_path) == manifest
    assert _kinds(tmp_path) == []
    # Whoever had the old generation open goes on with it.
    assert found_hits(reader, query, 6) == hits


def test_a_search_structure_that_comes_out_otherwise_is_published_under_a_new_name(
    controller: Controller, tmp_path: Path
) -> None:
    controller.close()
    manifest = _current(tmp_path)
    forge(controller.prefix, faiss_of(manifest.segments[0]))
    assert _kinds(tmp_path) == [FindingKind.ALIGNMENT]
    actions = _repair(tmp_path)
    after = _current(tmp_path)
    assert any(f"generation {after.generation} was published" in action for action in actions)
    assert after.generation > manifest.generation
    assert after.fence > manifest.fence
    assert after.base_generation == manifest.base_generation
    assert after.segments[0].parquet == manifest.segments[0].parquet
    assert _kinds(tmp_path) == []
    _assert_all_found_and_goes_on(tmp_path)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("has_database", [True, False])
def test_a_lost_pointer_names_the_newest_generation_again(
    controller: Controller, tmp_path: Path, damage: Callable[[Path], None], has_database: bool
) -> None:
    controller.close()
    before = _current(tmp_path)
    if not has_database:
        _delete_database(tmp_path)
    damage(controller.prefix / "CURRENT")
    actions = _repair(tmp_path)
    assert f"generation {before.generation} again, the newest there is" in " ".join(actions)
    assert _current(tmp_path) == before
    assert _kinds(tmp_path) == []


@pytest.mark.parametrize("damage", [cut, delete])
def test_an_older_generation_is_taken_with_a_new_number_and_said_to_be_older(
    controller: Controller, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    controller.close()
    newest = _current(tmp_path)
    damage(controller.prefix / f"manifests/{newest.generation:08d}-{newest.fence}.json")
    actions = " ".join(_repair(tmp_path))
    assert f"Generation {newest.generation} cannot be read. The older generation" in actions
    after = _current(tmp_path)
    assert after.generation == newest.generation + 1
    assert after.fence > newest.fence
    assert after.base_generation == after.generation
    assert _kinds(tmp_path) == []
    # The catalog followed: the photo that had changed is the old one, and is indexed again.
    again = Controller(tmp_path)
    again.runner.start()
    try:
        assert sorted(again.find("any")) == NAMES
        red, orange = again.score("red.png", "red"), again.score("red.png", "orange")
        again.index()
        assert again.generation > after.generation
        assert (again.score("red.png", "red"), again.score("red.png", "orange")) != (red, orange)
        assert sorted(again.find("any")) == NAMES
    finally:
        again.close()


def test_lost_vectors_are_said_to_be_lost_and_nothing_is_forgotten(
    controller: Controller, tmp_path: Path
) -> None:
    controller.close()
    manifest = _current(tmp_path)
    path = controller.prefix / manifest.segments[0].parquet.name
    delete(path)
    actions = _repair(tmp_path)
    assert any("catalog was left as it is" in action for action in actions)
    assert _current(tmp_path) == manifest
    assert _kinds(tmp_path) == [FindingKind.PARQUET]
    with sqlite3.connect(controller.database_file) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM images")
    connection.close()
    assert count == 6


def test_without_any_intact_generation_the_pointer_stays_and_the_operator_is_told(
    controller: Controller, tmp_path: Path
) -> None:
    controller.close()
    cut(controller.prefix / "CURRENT")
    for path in (controller.prefix / "manifests").iterdir():
        cut(path)
    assert any("No generation is intact" in action for action in _repair(tmp_path))
    assert FindingKind.POINTER in _kinds(tmp_path)


def test_wrong_rows_of_the_catalog_are_put_right_and_failures_stay(
    controller: Controller, tmp_path: Path
) -> None:
    (controller.photos / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    controller.index()
    controller.close()
    with sqlite3.connect(controller.database_file) as connection:
        connection.execute("UPDATE images SET segment_row = 77 WHERE image_path LIKE '%blue%'")
        connection.execute("DELETE FROM images WHERE image_path LIKE '%green%'")
    connection.close()
    assert _kinds(tmp_path)
    _repair(tmp_path)
    assert _kinds(tmp_path) == []
    again = Controller(tmp_path)
    assert again.indexing.stats().num_failed == 1
    again.close()
    (controller.photos / "bad.png").unlink()


def test_leftovers_are_deleted(controller: Controller, tmp_path: Path) -> None:
    controller.close()
    leftover = controller.prefix / "segments" / "00000090-1.parquet"
    leftover.write_bytes(b"half")
    assert any("deleted" in action for action in _repair(tmp_path))
    assert not leftover.exists()
    assert _kinds(tmp_path) == []


def test_a_home_in_use_is_not_operated_on(controller: Controller, tmp_path: Path) -> None:
    cut(controller.prefix / "CURRENT")
    with HomeLock(tmp_path), pytest.raises(HomeInUse, match="stop it first"):
        _repair(tmp_path)
    assert _kinds(tmp_path) == [FindingKind.POINTER]


def test_a_repair_that_is_killed_before_any_change_of_a_file_can_be_repeated(
    controller: Controller, tmp_path: Path, start_process: StartProcess
) -> None:
    controller.close()
    template = tmp_path / "template"
    shutil.copytree(controller.prefix, template)
    files = DirectoryIndexFiles(template)
    manifest = files.current()
    assert manifest is not None
    images = live_locations(files, manifest).keys()
    # All at once: a forged structure, a newest generation that is lost, and no database.
    forge(template, faiss_of(manifest.segments[0]))
    cut(template / "CURRENT")
    number, is_sprung = 0, True
    while is_sprung:
        number += 1
        home = tmp_path / str(number)
        shutil.copytree(template, home / "index")
        process, _ = start_process(die_in_repair, home, number)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        is_sprung = process.exitcode != 0
        _repair(home)
        assert _kinds(home) == []
        files = DirectoryIndexFiles(home / "index")
        assert live_locations(files, files.current()).keys() == images
        shutil.rmtree(home)
    assert number > 10
