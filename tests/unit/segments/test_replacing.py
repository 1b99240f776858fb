"""Segments of another model that are prepared while others publish, and then take all places."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imagedex.core.errors import CorruptIndex, LeaseLost
from imagedex.core.images import RowLocation
from imagedex.segments import (
    DirectoryIndexFiles,
    Manifest,
    PartRows,
    PreparedReplacement,
    Replacement,
    examine_files,
    roll_back,
)
from imagedex.testing.index_files import (
    FINGERPRINT,
    assert_holds,
    live_locations,
    make_part,
    publish_images,
    unit_vectors,
)

_OLD_DIM, _DIM = 8, 6
_IMAGES = {f"/{n}": vector for n, vector in enumerate(unit_vectors(4, _OLD_DIM))}
_NEW = {f"/{n}": vector for n, vector in enumerate(unit_vectors(5, _DIM, seed=2))}
_REPLACEMENT = Replacement(
    fence=5, job_id="change", model_name="new", fingerprint="new-1", dim=_DIM
)


@pytest.fixture
def files(tmp_path: Path) -> DirectoryIndexFiles:
    """An index of four images in two segments, one of which is gone."""
    files = DirectoryIndexFiles(tmp_path)
    publish_images(files, dict(list(_IMAGES.items())[:2]), chunk=0)
    publish_images(files, dict(list(_IMAGES.items())[2:]), gone=["/1"], chunk=1)
    return files


def _current(files: DirectoryIndexFiles) -> Manifest:
    manifest = files.current()
    assert manifest is not None
    return manifest


def _write(files: DirectoryIndexFiles, chunk: int, *paths: str, fingerprint: str = "new-1") -> str:
    part = make_part({path: _NEW[path] for path in paths}, dim=_DIM)
    return files.write_part("change", chunk, 5, replace(part, fingerprint=fingerprint))


def _publish(
    prepared: PreparedReplacement, files: DirectoryIndexFiles, *removed: RowLocation
) -> Manifest:
    generation = _current(files).generation
    return prepared.publish(expected_generation=generation, removed=removed)


def test_the_new_vectors_take_the_place_of_all(files: DirectoryIndexFiles) -> None:
    before = _current(files)
    first, second = _write(files, 0, "/0", "/1", "/2"), _write(files, 1, "/3", "/4")
    with files.prepare_replacement(_REPLACEMENT) as prepared:
        assert prepared.add([PartRows(first, [0, 2]), PartRows(second, [0])]) == 1
        # Others publish meanwhile, by their own fence.
        publish_images(files, {"/4": unit_vectors(1, _OLD_DIM, seed=9)[0]}, chunk=2)
        assert prepared.add([PartRows(second, [1])]) == 2
        manifest = _publish(prepared, files, RowLocation(1, 1))
    assert (manifest.model_name, manifest.fingerprint, manifest.dim) == ("new", "new-1", _DIM)
    # Catalogs that lag are filled anew, and commits of the other lane keep their fence.
    assert manifest.base_generation == manifest.generation > before.generation
    assert (manifest.fence, manifest.merge_fence) == (before.fence, 5)
    assert not manifest.only_moves
    assert live_locations(files, manifest).keys() == {"/0", "/3", "/4"}
    assert_holds(files, {path: _NEW[path] for path in ("/0", "/3", "/4")}, dim=_DIM)
    assert not list(files.index_prefix.rglob("merge-*"))
    files.remove_parts("change")
    files.remove_parts("change")
    assert not (files.index_prefix / "parts" / "change").exists()
    files.sweep(keep_jobs=[])
    assert examine_files(files.index_prefix).findings == ()


def test_the_old_generation_can_be_brought_back_while_it_is_kept(
    files: DirectoryIndexFiles,
) -> None:
    before = _current(files)
    part = _write(files, 0, "/0")
    with files.prepare_replacement(_REPLACEMENT) as prepared:
        prepared.add([PartRows(part, [0])])
        _publish(prepared, files)
    files.sweep(keep_jobs=[])
    back = roll_back(files.index_prefix, generation=None, known_generation=3)
    assert (back.model_name, back.fingerprint, back.dim) == (
        before.model_name,
        FINGERPRINT,
        _OLD_DIM,
    )
    # The same files, under names of their own.
    assert [s.parquet.sha256 for s in back.segments] == [s.parquet.sha256 for s in before.segments]
    assert_holds(files, {p: v for p, v in _IMAGES.items() if p != "/1"}, dim=_OLD_DIM)


def test_what_is_not_published_leaves_nothing(files: DirectoryIndexFiles) -> None:
    before = _current(files)
    part = _write(files, 0, "/0")
    with files.prepare_replacement(_REPLACEMENT) as prepared:
        prepared.add([PartRows(part, [0])])
    assert _current(files) == before
    assert not list(files.index_prefix.rglob("merge-*"))


def test_an_index_may_have_no_image_left(files: DirectoryIndexFiles) -> None:
    with files.prepare_replacement(_REPLACEMENT) as prepared:
        manifest = _publish(prepared, files)
    assert (manifest.segments, manifest.images) == ((), 0)
    assert_holds(files, {}, dim=_DIM)


@pytest.mark.parametrize("fingerprint", ["other-1", ""])
def test_parts_of_a_third_model_are_refused(files: DirectoryIndexFiles, fingerprint: str) -> None:
    part = _write(files, 0, "/0", fingerprint=fingerprint)
    with (
        files.prepare_replacement(_REPLACEMENT) as prepared,
        pytest.raises(CorruptIndex, match="expected 6 of 'new-1'; run its chunk again"),
    ):
        prepared.add([PartRows(part, [0])])


def test_whoever_was_replaced_or_looked_too_early_may_not_publish(
    files: DirectoryIndexFiles,
) -> None:
    part = _write(files, 0, "/0")
    with files.prepare_replacement(_REPLACEMENT) as prepared:
        prepared.add([PartRows(part, [0])])
        with pytest.raises(LeaseLost, match="begin again from the current one"):
            prepared.publish(expected_generation=1, removed=())
        successor = replace(_REPLACEMENT, fence=6, job_id="successor")
        with files.prepare_replacement(successor) as other:
            _publish(other, files)
        with pytest.raises(LeaseLost, match="the owner was replaced"):
            _publish(prepared, files)


def test_where_there_is_no_index_there_is_no_model_to_change(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    with (
        pytest.raises(ValueError, match="no index"),
        files.prepare_replacement(_REPLACEMENT),
    ):
        raise AssertionError("It must not begin.")
