"""Going back to a snapshot or an earlier generation, with the catalog following."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagedex.app import Surgery
from imagedex.core.errors import CorruptIndex, HomeInUse, NotFound, StorageError, Unavailable
from imagedex.core.images import RowLocation
from imagedex.segments import DirectoryIndexFiles, SnapshotDirectory
from support.controller import Controller
from support.repairing import surgery_of

NAMES = ["black.png", "blue.png", "green.png", "red.png", "white.png", "yellow.png"]


@contextmanager
def _surgery(home: Path) -> Iterator[Surgery]:
    surgery = surgery_of(home)
    try:
        yield surgery
    finally:
        surgery.close()


def _restore(home: Path, *, recreate: bool = False) -> int:
    with _surgery(home) as surgery, surgery.alone():
        return surgery.snapshots.restore("kept", recreate=recreate).generation


def _is_healthy(home: Path) -> bool:
    with _surgery(home) as surgery:
        return surgery.examine().is_healthy


def _keep(home: Path) -> None:
    with _surgery(home) as surgery:
        surgery.snapshots.create("kept")


def _delete_database(home: Path) -> None:
    for path in home.glob("imagedex.db*"):
        path.unlink()


@pytest.fixture
def kept(controller: Controller, tmp_path: Path) -> Controller:
    """A closed controller whose photos went on after a snapshot: one more, one gone, one failed."""
    (controller.photos / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    controller.index()
    _keep(tmp_path)
    controller.paint("new.png", "pink")
    (controller.photos / "green.png").unlink()
    (controller.photos / "bad.png").unlink()
    controller.index()
    paths = [str(controller.photos / name) for name in ("green.png", "bad.png")]
    controller.wait(controller.indexing.notify(paths)[0])
    assert "green.png" not in controller.find("any")
    assert controller.indexing.stats().num_failed == 0
    controller.close()
    return controller


def _assert_as_kept_and_goes_on(home: Path) -> None:
    """Let a new controller find what was kept, and bring it up to date with the photos."""
    assert _is_healthy(home)
    again = Controller(home)
    again.runner.start()
    try:
        assert sorted(again.find("any")) == NAMES
        stats = again.indexing.stats()
        assert (stats.num_images, stats.num_failed) == (6, 1)
        again.index()
        paths = [str(again.photos / name) for name in ("green.png", "bad.png")]
        again.wait(again.indexing.notify(paths)[0])
        assert sorted(again.find("any")) == sorted({*NAMES, "new.png"} - {"green.png"})
        assert again.generation > stats.generation
        assert again.indexing.stats().num_failed == 0
    finally:
        again.close()
    assert _is_healthy(home)


def test_a_restored_snapshot_is_a_new_generation_and_the_catalog_follows(
    kept: Controller, tmp_path: Path
) -> None:
    before = DirectoryIndexFiles(kept.prefix).current()
    assert before is not None
    assert _restore(tmp_path) > before.generation
    _assert_as_kept_and_goes_on(tmp_path)


def test_a_snapshot_is_restored_without_a_database(kept: Controller, tmp_path: Path) -> None:
    _delete_database(tmp_path)
    _restore(tmp_path)
    _assert_as_kept_and_goes_on(tmp_path)


def test_a_snapshot_is_restored_where_home_and_index_are_gone(
    kept: Controller, tmp_path: Path
) -> None:
    _delete_database(tmp_path)
    shutil.rmtree(kept.prefix)
    _restore(tmp_path)
    _assert_as_kept_and_goes_on(tmp_path)


def test_an_index_that_is_gone_is_made_anew_only_when_told(
    kept: Controller, tmp_path: Path
) -> None:
    before = DirectoryIndexFiles(kept.prefix).current()
    assert before is not None
    shutil.rmtree(kept.prefix)
    with pytest.raises(StorageError, match="Mount its storage"):
        _restore(tmp_path)
    assert not kept.prefix.exists()
    assert _restore(tmp_path, recreate=True) > before.generation
    _assert_as_kept_and_goes_on(tmp_path)


def test_a_catalog_from_a_backup_older_than_the_restoring_is_filled_anew(
    kept: Controller, tmp_path: Path
) -> None:
    shutil.copy(kept.database_file, tmp_path / "backup")
    _restore(tmp_path)
    _delete_database(tmp_path)
    shutil.copy(tmp_path / "backup", kept.database_file)
    again = Controller(tmp_path)
    index = again.catalog.get_index(again.prefix)
    assert index is not None
    new = str(again.photos / "new.png")
    assert again.catalog.lookup(index.index_id, [new])
    again.publisher.reconcile(again.prefix)
    assert not again.catalog.lookup(index.index_id, [new])
    where = again.catalog.lookup(index.index_id, [str(again.photos / "green.png")])
    assert [entry.location for entry in where.values()] == [RowLocation(1, 2)]
    again.close()
    assert _is_healthy(tmp_path)


def test_a_crash_between_restoring_and_the_catalog_is_made_good_at_the_next_start(
    kept: Controller, tmp_path: Path
) -> None:
    shutil.copy(kept.database_file, tmp_path / "before")
    _restore(tmp_path)
    _delete_database(tmp_path)
    shutil.copy(tmp_path / "before", kept.database_file)
    again = Controller(tmp_path)
    again.runner.start()
    try:
        again.index()  # A job begins with bringing the catalog up to date.
        found = sorted(again.find("any"))
        assert found == sorted([*NAMES, "new.png"])  # Gone files leave by notification alone.
    finally:
        again.close()
    assert _is_healthy(tmp_path)


def test_nothing_goes_back_while_a_server_holds_the_home(kept: Controller, tmp_path: Path) -> None:
    before = DirectoryIndexFiles(kept.prefix).current()
    with surgery_of(tmp_path).alone():
        with pytest.raises(HomeInUse):
            _restore(tmp_path)
        with pytest.raises(HomeInUse), _surgery(tmp_path) as surgery, surgery.alone():
            surgery.snapshots.roll_back(None)
    assert DirectoryIndexFiles(kept.prefix).current() == before


def test_a_rollback_takes_the_catalog_along(kept: Controller, tmp_path: Path) -> None:
    with _surgery(tmp_path) as surgery, surgery.alone():
        generation = surgery.snapshots.roll_back(None).generation
    assert _is_healthy(tmp_path)
    again = Controller(tmp_path)
    again.runner.start()
    try:
        assert again.generation == generation
        assert sorted(again.find("any")) == sorted([*NAMES, "new.png"])  # Before the removal.
        again.index()
        assert sorted(again.find("any")) == sorted([*NAMES, "new.png"])
    finally:
        again.close()


def test_snapshots_of_a_busy_index_are_whole(controller: Controller, tmp_path: Path) -> None:
    may_stop = threading.Event()

    def index_again() -> None:
        while not may_stop.is_set():
            controller.index(force=True)

    indexing = threading.Thread(target=index_again)
    indexing.start()
    try:
        with _surgery(tmp_path) as surgery:
            names = [surgery.snapshots.create(f"kept-{number}").name for number in range(8)]
    finally:
        may_stop.set()
        indexing.join()
    controller.close()
    for name in names:
        with _surgery(tmp_path) as surgery, surgery.alone():
            assert surgery.snapshots.restore(name).images == 6
        assert _is_healthy(tmp_path)


def test_without_an_index_there_is_nothing_to_keep(tmp_path: Path) -> None:
    with _surgery(tmp_path) as surgery:
        with pytest.raises(NotFound, match="Nothing is indexed"):
            surgery.snapshots.create(None)
        assert surgery.snapshots.list() == []


def test_a_damaged_index_is_not_kept(controller: Controller, tmp_path: Path) -> None:
    next((controller.prefix / "segments").glob("*.parquet")).unlink()
    with pytest.raises(CorruptIndex):
        _keep(tmp_path)


def test_an_index_that_changes_faster_than_it_can_be_kept_is_told_as_such(
    controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.index()
    number = 0

    def overtaken(*_: object, **__: object) -> None:
        nonlocal number
        number += 1
        path = controller.paint(f"{number}.png", "pink")
        controller.wait(controller.indexing.notify([path])[0])
        raise CorruptIndex("A file is missing.")

    monkeypatch.setattr(SnapshotDirectory, "create", overtaken)
    with _surgery(tmp_path) as surgery, pytest.raises(Unavailable, match="try again"):
        surgery.snapshots.create("kept")
    assert number > 1
