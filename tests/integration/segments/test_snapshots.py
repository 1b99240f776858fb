"""A snapshot is there whole or not at all, and comes back as it was."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagedex.core.errors import Conflict, CorruptIndex, InvalidRequest, NotFound, StorageError
from imagedex.segments import (
    DirectoryIndexFiles,
    FileEntry,
    SnapshotDirectory,
    examine_files,
    integrity,
    publish_lock,
)
from imagedex.segments import snapshots as snapshots_module
from imagedex.segments.republishing import roll_back
from imagedex.testing.index_files import assert_holds
from support.committing import DIM, StartProcess, commit_step, commit_steps, images_after
from support.damage import DAMAGES, cut, delete
from support.snapshots import (
    FAILURES,
    bring_back,
    die_in_bringing_back,
    die_in_deleting,
    die_in_keeping,
    keep,
)
from support.structures import files_with_faiss


@pytest.fixture
def files(tmp_path: Path) -> DirectoryIndexFiles:
    """An index with three generations and tombstones, and a snapshot of the third."""
    files = files_with_faiss(tmp_path / "index")
    commit_steps(files, 3)
    keep(tmp_path)
    return files


def _snapshots(folder: Path) -> SnapshotDirectory:
    return SnapshotDirectory(folder / "snapshots")


def test_a_snapshot_outlives_the_generations_and_their_sweeping(
    files: DirectoryIndexFiles, tmp_path: Path
) -> None:
    for step in range(4, 12):
        commit_step(files, step)
    files.sweep(keep_jobs=[])
    for folder in ("segments", "tombstones", "manifests"):  # As if all of it had been swept.
        for path in (tmp_path / "index" / folder).iterdir():
            path.unlink()
    manifest = bring_back(tmp_path)
    assert_holds(files, images_after(3), dim=DIM)
    assert examine_files(files.index_prefix).findings == ()
    assert manifest.base_generation == manifest.generation
    files.sweep(keep_jobs=[])
    assert_holds(files, images_after(3), dim=DIM)


def test_what_comes_back_is_a_new_generation_and_work_goes_on_from_it(
    files: DirectoryIndexFiles, tmp_path: Path
) -> None:
    for step in (4, 5):
        commit_step(files, step)
    before = files.current()
    assert before is not None
    manifest = bring_back(tmp_path, known_generation=70)
    assert manifest.generation == 71
    assert manifest.fence > before.fence
    assert manifest.next_segment >= before.next_segment
    commit_step(files, 4, fence=manifest.fence)
    assert_holds(files, images_after(4), dim=DIM)


def test_a_snapshot_shares_the_files_of_the_index(
    files: DirectoryIndexFiles, tmp_path: Path
) -> None:
    for path in (tmp_path / "index" / "segments").iterdir():
        assert path.samefile(tmp_path / "snapshots" / "kept" / "segments" / path.name)


def test_without_hard_links_a_snapshot_is_a_copy(
    tmp_path: Path, small_disk: Path, files: DirectoryIndexFiles
) -> None:
    elsewhere = SnapshotDirectory(small_disk / "snapshots")
    manifest = files.current()
    assert manifest is not None
    snapshot = elsewhere.create("copy", files.index_prefix, manifest, FAILURES)
    shutil.rmtree(files.index_prefix)
    files.index_prefix.mkdir()
    with publish_lock(files.index_prefix).held():
        elsewhere.bring_back(snapshot, files.index_prefix, known_generation=0)
    assert_holds(files, images_after(3), dim=DIM)


def test_on_a_full_disk_there_is_no_snapshot_and_no_rest_of_one(
    small_disk: Path, files: DirectoryIndexFiles
) -> None:
    (small_disk / "ballast").write_bytes(bytes(220_000))
    directory = SnapshotDirectory(small_disk / "snapshots")
    manifest = files.current()
    assert manifest is not None
    with pytest.raises(StorageError, match="free some space"):
        directory.create("copy", files.index_prefix, manifest, FAILURES)
    assert directory.list() == []
    assert [path.name for path in (small_disk / "snapshots").iterdir()] == ["LOCK"]
    (small_disk / "ballast").unlink()
    directory.create("copy", files.index_prefix, manifest, FAILURES)


def test_failures_are_kept_beside_the_images(files: DirectoryIndexFiles, tmp_path: Path) -> None:
    (snapshot,) = _snapshots(tmp_path).list()
    assert not isinstance(snapshot, CorruptIndex)
    assert tuple(_snapshots(tmp_path).failures(snapshot)) == FAILURES
    assert snapshot.failed_images == 2
    assert snapshot.manifest == files.current()
    assert snapshot.index_prefix == files.index_prefix
    assert snapshot.bytes > 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_the_index_is_put_right_from_the_snapshot(
    files: DirectoryIndexFiles, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for path in (tmp_path / "index" / "segments").iterdir():
        damage(path)
    cut(tmp_path / "index" / "CURRENT")
    bring_back(tmp_path)
    assert_holds(files, images_after(3), dim=DIM)


def test_an_index_that_began_anew_under_the_same_numbers_gives_way(
    files: DirectoryIndexFiles, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "index")
    commit_steps(files, 1)
    bring_back(tmp_path)
    assert_holds(files, images_after(3), dim=DIM)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_does_not_come_back(
    files: DirectoryIndexFiles, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    commit_step(files, 4)
    manifest = files.current()
    # A hard link is the same file, so that a new one must take its place for the damage.
    damage(next((tmp_path / "snapshots" / "kept" / "segments").glob("*.parquet")))
    with pytest.raises(CorruptIndex, match="snapshots/kept"):
        bring_back(tmp_path)
    assert files.current() == manifest
    assert_holds(files, images_after(4), dim=DIM)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_snapshot_whose_description_is_damaged_is_listed_as_damaged_and_can_be_deleted(
    files: DirectoryIndexFiles, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    keep(tmp_path, "other")
    (manifest,) = (tmp_path / "snapshots" / "kept" / "manifests").iterdir()
    damage(manifest)
    sound, damaged = _snapshots(tmp_path).list()
    assert not isinstance(sound, CorruptIndex)
    assert sound.name == "other"
    assert "snapshots/kept" in str(damaged)
    _snapshots(tmp_path).delete("kept")
    assert len(_snapshots(tmp_path).list()) == 1


def test_a_damaged_generation_is_not_kept(files: DirectoryIndexFiles, tmp_path: Path) -> None:
    delete(next((tmp_path / "index" / "segments").glob("*.faiss")))
    with pytest.raises(CorruptIndex, match="imagedex doctor"):
        keep(tmp_path, "other")
    assert len(_snapshots(tmp_path).list()) == 1


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "../x", "a\0", "ä", "LOCK", "x" * 101]
)
def test_what_cannot_name_a_snapshot_is_refused(
    files: DirectoryIndexFiles, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidRequest):
        keep(tmp_path, name)
    with pytest.raises(InvalidRequest):
        _snapshots(tmp_path).delete(name)


def test_names_are_used_once_and_unknown_ones_are_told(
    files: DirectoryIndexFiles, tmp_path: Path
) -> None:
    with pytest.raises(Conflict, match="'kept' already"):
        keep(tmp_path)
    for call in (_snapshots(tmp_path).delete, _snapshots(tmp_path).get):
        with pytest.raises(NotFound, match="snapshot list"):
            call("unknown")
    assert SnapshotDirectory(tmp_path / "none").list() == []


@pytest.mark.usefixtures("files")
def test_a_kill_while_a_snapshot_is_made_leaves_it_whole_or_not_there(
    tmp_path: Path, start_process: StartProcess
) -> None:
    seen = set()
    for _, folder in _killed(tmp_path, start_process, die_in_keeping, keeps=False):
        is_there = bool(_snapshots(folder).list())
        seen.add(is_there)
        if not is_there:
            keep(folder)
        # Rests are gone with the next one that is made.
        keep(folder, "next")
        assert sorted(p.name for p in (folder / "snapshots").iterdir()) == ["LOCK", "kept", "next"]
        shutil.rmtree(folder / "index")
        bring_back(folder)
        assert_holds(DirectoryIndexFiles(folder / "index"), images_after(3), dim=DIM)
    assert seen == {True, False}


def test_a_kill_while_a_snapshot_comes_back_leaves_the_old_state_or_the_new_one(
    files: DirectoryIndexFiles, tmp_path: Path, start_process: StartProcess
) -> None:
    for step in (4, 5):
        commit_step(files, step)
    files.sweep(keep_jobs=[])
    for path in (tmp_path / "index" / "segments").glob("00000001-*"):
        path.unlink()  # So that some files have to come back.
    steps = set()
    for _, folder in _killed(tmp_path, start_process, die_in_bringing_back, keeps=True):
        there = DirectoryIndexFiles(folder / "index")
        manifest = there.current()
        assert manifest is not None
        steps.add(manifest.base_generation > 0)
        bring_back(folder)
        assert_holds(there, images_after(3), dim=DIM)
        commit_step(there, 4, fence=manifest.fence + 9)
        there.sweep(keep_jobs=[])
        assert_holds(there, images_after(4), dim=DIM)
        assert not list((folder / "index").rglob("*.tmp"))
    assert steps == {True, False}


def test_a_disk_without_hard_links_can_hold_a_snapshot(
    files: DirectoryIndexFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patch:
        patch.setattr("imagedex.segments.snapshots.os.link", refuse)
        keep(tmp_path, "copied")
    for step in range(4, 8):
        commit_step(files, step)
    bring_back(tmp_path, "copied")
    assert_holds(files, images_after(3), dim=DIM)


def test_small_segments_that_are_merged_away_while_a_large_one_is_read_are_kept(
    files: DirectoryIndexFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = integrity.require_intact
    is_swept = False

    def sweeping(index_prefix: Path, entry: FileEntry, **options: Any) -> Path:
        nonlocal is_swept
        if not is_swept:
            is_swept = True
            manifest = files.current()
            assert manifest is not None
            for segment in manifest.segments:
                delete(files.index_prefix / segment.parquet.name)
        return real(index_prefix, entry, **options)

    monkeypatch.setattr(snapshots_module, "require_intact", sweeping)
    keep(tmp_path, "whole")
    assert is_swept


def test_what_is_no_snapshot_is_not_deleted_by_a_name(tmp_path: Path) -> None:
    snapshots = tmp_path / "snapshots"
    (snapshots / "photos").mkdir(parents=True)
    (snapshots / "photos" / "one.jpg").write_bytes(b"mine")
    (snapshots / "notes").write_text("mine")
    for name in ("photos", "notes"):
        with pytest.raises(NotFound):
            _snapshots(tmp_path).delete(name)
    assert (snapshots / "photos" / "one.jpg").exists()
    assert (snapshots / "notes").exists()


@pytest.mark.usefixtures("files")
def test_a_kill_while_a_snapshot_is_deleted_leaves_it_whole_or_gone(
    tmp_path: Path, start_process: StartProcess
) -> None:
    seen = set()
    for _, folder in _killed(tmp_path, start_process, die_in_deleting, keeps=True):
        found = _snapshots(folder).list()
        seen.add(len(found))
        if found:
            bring_back(folder)
        assert_holds(DirectoryIndexFiles(folder / "index"), images_after(3), dim=DIM)
        keep(folder, "next")
        names = {path.name for path in (folder / "snapshots").iterdir()}
        assert names - {"kept"} == {"LOCK", "next"}
    assert seen == {0, 1}


def _killed(
    folder: Path, start_process: StartProcess, target: Callable[..., None], *, keeps: bool
) -> Iterator[tuple[int, Path]]:
    """Yield copies of the index, each after a process that was killed one change later."""
    number, is_killed = 0, True
    while is_killed:
        number += 1
        copy = folder / "copies" / str(number)
        shutil.copytree(folder / "index", copy / "index")
        if keeps:
            shutil.copytree(folder / "snapshots", copy / "snapshots")
        process, _ = start_process(target, copy, number)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        is_killed = process.exitcode != 0
        yield number, copy
        shutil.rmtree(copy)


class TestRollback:
    """An earlier generation that is kept becomes a new one."""

    @staticmethod
    def _roll_back(files: DirectoryIndexFiles, generation: int | None = None) -> int:
        with publish_lock(files.index_prefix).held():
            return roll_back(
                files.index_prefix, generation=generation, known_generation=0
            ).generation

    def test_the_one_before_is_the_default_and_any_kept_one_can_be_named(
        self, files: DirectoryIndexFiles
    ) -> None:
        assert self._roll_back(files) == 4
        assert_holds(files, images_after(2), dim=DIM)
        assert self._roll_back(files, 1) == 5
        assert_holds(files, images_after(1), dim=DIM)
        assert self._roll_back(files, 3) == 6
        assert_holds(files, images_after(3), dim=DIM)

    def test_what_is_not_kept_or_damaged_is_told(self, files: DirectoryIndexFiles) -> None:
        with pytest.raises(NotFound, match=r"Generation 9 .*kept: 2, 1"):
            self._roll_back(files, 9)
        delete(files.index_prefix / "tombstones" / "00000002-1.parquet")
        with pytest.raises(CorruptIndex, match="00000002-1"):
            self._roll_back(files)
        manifest = files.current()
        assert manifest is not None
        assert manifest.generation == 3

    def test_a_storage_that_fails_leaves_the_generation_as_it_was(
        self, files: DirectoryIndexFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = files.current()

        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("imagedex.segments.durable.os.fsync", fail)
        with pytest.raises(StorageError, match="free some space"):
            self._roll_back(files)
        monkeypatch.undo()
        assert files.current() == before
        assert_holds(files, images_after(3), dim=DIM)
