"""Segments are merged as they pile up, and nobody notices."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from imagedex.catalog import CatalogCounts
from imagedex.core.errors import NotFound, StorageError
from imagedex.indexing import MergePolicy
from imagedex.jobs import JobStatus
from imagedex.segments import DirectoryIndexFiles, Manifest
from support.controller import Controller

_FEW = MergePolicy(max_deltas=2, rebuild_rows=10**6)

StartController = Callable[[], Controller]


@pytest.fixture
def start_controller(tmp_path: Path, request: pytest.FixtureRequest) -> StartController:
    """Return what makes controllers over the same files, each with jobs that run."""

    def start() -> Controller:
        controller = Controller(tmp_path, merge_policy=_FEW)
        request.addfinalizer(controller.close)
        controller.runner.start()
        return controller

    return start


def _manifest(controller: Controller) -> Manifest:
    manifest = DirectoryIndexFiles(controller.prefix).current()
    assert manifest is not None
    return manifest


def _notify(controller: Controller, *paths: str) -> None:
    job = controller.wait(controller.indexing.notify(paths)[0])
    assert job.status is JobStatus.COMPLETED, job.error


def test_deltas_are_merged_as_they_pile_up(start_controller: StartController) -> None:
    controller = start_controller()
    for number in range(8):
        controller.paint(f"main-{number}.png", "blue")
    controller.index()
    for number in range(7):
        _notify(controller, controller.paint(f"{number}.png", "green"))
        assert len(_manifest(controller).segments) <= 3
    _notify(controller, controller.paint("3.png", "red"))
    assert controller.find("red", 1) == ["3.png"]
    expected = sorted([f"main-{n}.png" for n in range(8)] + [f"{n}.png" for n in range(7)])
    assert sorted(controller.find("any")) == expected
    assert controller.catalog.counts(1).indexed == 15
    before = _manifest(controller).generation
    assert controller.index().processed_images == 15
    assert _manifest(controller).generation == before


def test_a_rebuild_makes_one_segment_of_what_counts(start_controller: StartController) -> None:
    controller = start_controller()
    paths = [controller.paint(f"{number}.png", "green") for number in range(4)]
    controller.index()
    _notify(controller, controller.paint("new.png", "red"))
    Path(paths[0]).unlink()
    _notify(controller, paths[0])
    Path(paths[1]).write_bytes(b"")
    controller.index()
    before = controller.find("any")
    job = controller.wait(controller.indexing.rebuild())
    assert (job.status, job.total_images, job.processed_images) == (JobStatus.COMPLETED, 4, 4)
    manifest = _manifest(controller)
    assert [segment.rows for segment in manifest.segments] == [4]
    assert manifest.tombstones == ()
    assert controller.find("any") == before
    stats = controller.indexing.stats()
    assert (stats.num_images, stats.num_failed) == (4, 1)
    # What it moved can be changed and removed, and what failed is still known to have failed.
    _notify(controller, controller.paint("2.png", "blue"))
    assert controller.find("blue", 1) == ["2.png"]
    Path(paths[3]).unlink()
    _notify(controller, paths[3])
    assert sorted(controller.find("any")) == ["1.png", "2.png", "new.png"]


def test_an_index_that_is_not_there_cannot_be_rebuilt(start_controller: StartController) -> None:
    with pytest.raises(NotFound, match="index a directory first"):
        start_controller().indexing.rebuild()


def test_a_crash_between_a_merge_and_the_database_neither_loses_nor_doubles(
    start_controller: StartController, tmp_path: Path
) -> None:
    first = start_controller()
    paths = [first.paint(f"{number}.png", "green") for number in range(6)]
    first.index()
    # From here on, the database will not have heard of anything.
    first.close()
    shutil.copy(first.database_file, tmp_path / "before.db")
    second = start_controller()
    Path(paths[0]).unlink()
    _notify(second, paths[0])
    _notify(second, second.paint("1.png", "red"))
    assert second.wait(second.indexing.rebuild()).status is JobStatus.COMPLETED
    second.close()
    for file in tmp_path.glob("imagedex.db*"):
        file.unlink()
    shutil.copy(tmp_path / "before.db", first.database_file)
    third = start_controller()
    third.publisher.reconcile(third.prefix)
    assert third.catalog.counts(1).indexed == 5
    assert third.catalog.lookup(1, [paths[0]]) == {}
    job = third.index()
    assert job.processed_images == 5
    _notify(third, third.paint("1.png", "blue"))
    assert third.find("blue", 1) == ["1.png"]
    assert sorted(third.find("any")) == [f"{number}.png" for number in range(1, 6)]


def test_a_crash_right_after_a_merge_forgets_no_failure_and_no_time_of_grace(
    start_controller: StartController, tmp_path: Path
) -> None:
    first = start_controller()
    paths = [first.paint(f"{number}.png", "green") for number in range(4)]
    first.index()
    _notify(first, first.paint("new.png", "red"))
    Path(paths[0]).write_bytes(b"no picture")
    Path(paths[1]).unlink()
    first.index()
    photos = str(first.photos)
    missing = first.catalog.missing_since(1, photos)
    assert list(missing) == [paths[1]]
    failed = first.catalog.lookup(1, [paths[0]])[paths[0]]
    first.close()
    shutil.copy(first.database_file, tmp_path / "before.db")
    second = start_controller()
    assert second.wait(second.indexing.rebuild()).status is JobStatus.COMPLETED
    second.close()
    for file in tmp_path.glob("imagedex.db*"):
        file.unlink()
    shutil.copy(tmp_path / "before.db", first.database_file)
    third = start_controller()
    third.publisher.reconcile(third.prefix)
    assert third.catalog.missing_since(1, photos) == missing
    known = third.catalog.lookup(1, [paths[0]])[paths[0]]
    assert (known.state, known.stamp, known.reason) == (failed.state, failed.stamp, failed.reason)
    assert known.location != failed.location
    assert third.catalog.counts(1) == CatalogCounts(indexed=5, failed=1)


def test_a_merge_that_the_storage_refuses_is_put_off(
    start_controller: StartController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = start_controller()
    controller.paint("main.png", "blue")
    controller.index()

    def refuse(*_: object) -> None:
        raise StorageError("The disk is full; free some space.")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(controller.publisher, "merge", refuse)
        for number in range(3):
            _notify(controller, controller.paint(f"{number}.png", "green"))
    assert "merge_put_off" in {entry["event"] for entry in logs}
    assert len(_manifest(controller).segments) == 4
    _notify(controller, controller.paint("last.png", "red"))
    assert len(_manifest(controller).segments) == 2
    assert len(controller.find("any")) == 5
