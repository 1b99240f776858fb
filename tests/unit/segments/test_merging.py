"""A merge that is prepared while others publish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imagedex.core.errors import LeaseLost, NotFound, Superseded
from imagedex.core.images import RowLocation
from imagedex.segments import (
    DirectoryIndexFiles,
    Manifest,
    Merge,
    MovedRows,
    examine_files,
    publish_lock,
    roll_back,
)
from imagedex.testing.index_files import (
    assert_holds,
    live_locations,
    make_commit,
    publish_images,
    unit_vectors,
)

_DIM = 8
_VECTORS = unit_vectors(12, _DIM)
_IMAGES = {f"/{number}": _VECTORS[number] for number in range(6)}


class _Cancelled(Exception):
    pass


def _go_on() -> None:
    """Stop nothing."""


def _files(directory: Path) -> DirectoryIndexFiles:
    """Return an index of two segments, with one of six images gone already."""
    files = DirectoryIndexFiles(directory)
    publish_images(files, dict(list(_IMAGES.items())[:4]), chunk=0)
    publish_images(files, dict(list(_IMAGES.items())[4:]), gone=["/1"], chunk=1)
    return files


def _all(files: DirectoryIndexFiles, *, fence: int = 1, beside: bool = False) -> Merge:
    manifest = files.current()
    assert manifest is not None
    numbers = frozenset(segment.number for segment in manifest.segments)
    return Merge(fence, "rebuild", numbers, beside_commits=beside)


def _left(directory: Path) -> list[Path]:
    return list((directory / "parts").rglob("merge-*"))


def test_what_comes_and_goes_while_a_merge_is_prepared_stays(tmp_path: Path) -> None:
    files = _files(tmp_path)
    before = files.current()
    where = live_locations(files, before)
    with files.prepare_merge(_all(files), _go_on) as prepared:
        publish_images(files, {"/new": _VECTORS[8]}, chunk=2)
        publish_images(files, {"/2": _VECTORS[9]}, gone=["/4"], chunk=3)
        beside = files.current()
        manifest, moved = prepared.publish()
        opened = files.open(manifest, None)
        segment = opened.segment(manifest.segments[-1])
        assert segment is not None
        assert segment is prepared.opened(manifest.segments[-1])
    expected = {**_IMAGES, "/new": _VECTORS[8], "/2": _VECTORS[9]}
    for path in ("/1", "/4"):
        del expected[path]
    assert_holds(files, expected, dim=_DIM)
    assert beside is not None
    assert (manifest.images, manifest.generation) == (5, beside.generation + 1)
    assert [entry.number for entry in manifest.segments] == [3, 4, 5]
    assert manifest.only_moves
    # The locations of before the merge lead to those of after it.
    now = live_locations(files, manifest)
    for path in ("/0", "/3", "/5"):
        assert moved.now(where[path]) == now[path]
    assert moved.now(now["/new"]) == now["/new"]
    assert moved.now(RowLocation(1, 1)) is None
    assert len(moved) == 5
    assert not _left(tmp_path)
    assert examine_files(tmp_path).findings == ()
    publish_images(files, {}, gone=["/3"], chunk=4)
    del expected["/3"]
    assert_holds(files, expected, dim=_DIM)


def test_a_merge_of_which_nothing_is_left_removes_its_segments(tmp_path: Path) -> None:
    files = _files(tmp_path)
    publish_images(files, {}, gone=[path for path in _IMAGES if path != "/1"], chunk=2)
    with files.prepare_merge(_all(files), _go_on) as prepared:
        publish_images(files, {"/new": _VECTORS[8]}, chunk=3)
        manifest, moved = prepared.publish()
    assert len(manifest.segments) == 1
    assert len(moved) == 0
    assert moved.now(RowLocation(1, 0)) is None
    assert_holds(files, {"/new": _VECTORS[8]}, dim=_DIM)


def test_a_merge_of_segments_that_went_away_is_superseded(tmp_path: Path) -> None:
    files = _files(tmp_path)
    with files.prepare_merge(_all(files), _go_on) as prepared:
        now = DirectoryIndexFiles(tmp_path).merge(Merge(1, "other", frozenset((1, 2))))
        with pytest.raises(Superseded, match="merge again"):
            prepared.publish()
    assert files.current() == now


def test_a_merge_does_not_outlive_a_step_back(tmp_path: Path) -> None:
    files = _files(tmp_path)
    publish_images(files, {}, gone=["/3"], chunk=2)
    with files.prepare_merge(_all(files), _go_on) as prepared:
        with publish_lock(tmp_path).held():
            back = roll_back(tmp_path, generation=None, known_generation=3)
        # The same segments, but a row that the merge has dropped counts again.
        with pytest.raises(Superseded):
            prepared.publish()
    assert files.current() == back
    assert "/3" in live_locations(files, back)


def test_merges_beside_commits_have_fences_of_their_own(tmp_path: Path) -> None:
    files = _files(tmp_path)
    with files.prepare_merge(_all(files, fence=4, beside=True), _go_on) as prepared:
        publish_images(files, {"/new": _VECTORS[8]}, fence=7, chunk=2)
        manifest, _ = prepared.publish()
    assert (manifest.fence, manifest.merge_fence) == (7, 4)
    # The owner of the commits goes on, though the merge's fence may be any.
    after = publish_images(files, {"/newer": _VECTORS[9]}, fence=7, chunk=3)
    assert (after.fence, after.merge_fence) == (7, 4)
    newer = files.merge(_all(files, fence=9, beside=True))
    assert (newer.fence, newer.merge_fence) == (7, 9)
    publish_images(files, {"/newest": _VECTORS[10]}, fence=8, chunk=4)
    with pytest.raises(LeaseLost, match="was replaced"):
        files.merge(_all(files, fence=8, beside=True))
    with pytest.raises(LeaseLost, match="was replaced"):
        files.merge(_all(files, fence=7))


def test_an_owner_that_was_replaced_while_it_merged_publishes_nothing(tmp_path: Path) -> None:
    files = _files(tmp_path)
    numbers = frozenset({1})
    with files.prepare_merge(Merge(4, "old", numbers, beside_commits=True), _go_on) as prepared:
        other = DirectoryIndexFiles(tmp_path)
        now = other.merge(Merge(5, "new", frozenset({2}), beside_commits=True))
        with pytest.raises(LeaseLost, match="was replaced"):
            prepared.publish()
    assert files.current() == now


@pytest.mark.parametrize("last", [1, 2, 3])
def test_a_merge_that_is_stopped_leaves_nothing(tmp_path: Path, last: int) -> None:
    files = _files(tmp_path)
    before = files.current()
    calls = 0

    def checkpoint() -> None:
        nonlocal calls
        calls += 1
        if calls == last:
            raise _Cancelled

    with pytest.raises(_Cancelled), files.prepare_merge(_all(files), checkpoint):
        raise AssertionError("It was prepared all the same.")
    assert files.current() == before
    assert not _left(tmp_path)


def test_what_a_running_merge_builds_is_swept_only_when_its_job_is_not_kept(
    tmp_path: Path,
) -> None:
    files = _files(tmp_path)
    with files.prepare_merge(_all(files), _go_on) as prepared:
        files.sweep(keep_jobs=["rebuild"])
        files.sweep(keep_jobs=None)
        assert len(_left(tmp_path)) == 1
        assert examine_files(tmp_path).findings == ()
        files.sweep(keep_jobs=[])
        assert not _left(tmp_path)
        before = files.current()
        with pytest.raises(Superseded, match="swept"):
            prepared.publish()
    assert files.current() == before
    assert sorted(path.name for path in (tmp_path / "segments").iterdir()) == [
        "00000001-1.parquet",
        "00000002-1.parquet",
    ]


def test_a_merge_that_is_run_again_clears_away_what_it_had_built(tmp_path: Path) -> None:
    files = _files(tmp_path)
    old = tmp_path / "parts" / "rebuild" / "merge-1"
    (old / "segments").mkdir(parents=True)
    (old / "segments" / "00000001-1.parquet").write_bytes(b"half of it")
    with files.prepare_merge(_all(files, fence=2), _go_on):
        assert [path.name for path in _left(tmp_path)] == ["merge-2"]


def test_going_back_passes_over_generations_that_only_moved_rows(tmp_path: Path) -> None:
    files = _files(tmp_path)
    merged = files.merge(_all(files))
    assert merged.only_moves
    with publish_lock(tmp_path).held():
        back = roll_back(tmp_path, generation=None, known_generation=merged.generation)
    assert_holds(files, dict(list(_IMAGES.items())[:4]), dim=_DIM)
    assert not back.only_moves


def test_there_is_no_going_back_past_a_first_generation_that_was_merged(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    publish_images(files, _IMAGES)
    files.merge(_all(files))
    with publish_lock(tmp_path).held(), pytest.raises(NotFound, match="is not kept"):
        roll_back(tmp_path, generation=None, known_generation=2)
    with publish_lock(tmp_path).held():
        assert roll_back(tmp_path, generation=1, known_generation=2).generation == 3


def test_a_commit_after_a_merge_says_that_it_changes_something(tmp_path: Path) -> None:
    files = _files(tmp_path)
    files.merge(_all(files))
    manifest: Manifest = files.commit(make_commit(files.current(), dim=_DIM))
    assert not manifest.only_moves


def test_moved_rows_come_in_parts() -> None:
    moved = MovedRows(9, {1: np.array([0, -1, 1]), 4: np.array([2])})
    expected = [
        (RowLocation(1, 0), RowLocation(9, 0)),
        (RowLocation(1, 2), RowLocation(9, 1)),
        (RowLocation(4, 0), RowLocation(9, 2)),
    ]
    assert moved.part(0, 2) + moved.part(2, 2) == expected
    assert moved.part(3, 2) == []
    assert moved.now(RowLocation(1, 2)) == RowLocation(9, 1)
    assert moved.now(RowLocation(1, 3)) is None
    assert moved.now(RowLocation(2, 0)) == RowLocation(2, 0)
