"""A generation has one successor, and readers find it whatever ``CURRENT`` says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from imagedex.core.errors import CorruptIndex, LeaseLost
from imagedex.segments import (
    DirectoryIndexFiles,
    Manifest,
    Merge,
    examine_files,
    mend_pointer,
    publish_lock,
    roll_back,
)
from imagedex.segments.republishing import republish
from imagedex.segments.succession import claim, claimed_generations
from imagedex.testing.index_files import (
    VectorArray,
    assert_holds,
    make_commit,
    make_part,
    publish_images,
    unit_vectors,
)

_DIM = 8
_VECTORS = unit_vectors(12, _DIM)


@pytest.fixture
def files(tmp_path: Path) -> DirectoryIndexFiles:
    return DirectoryIndexFiles(tmp_path / "index")


def _publish(files: DirectoryIndexFiles, count: int, *, fence: int = 1) -> list[Manifest]:
    """Publish so many generations, each with an image of its own."""
    first = files.current()
    begin = first.images if first is not None else 0
    return [
        publish_images(files, {f"/{n}": _VECTORS[n]}, chunk=n, fence=fence)
        for n in range(begin, begin + count)
    ]


def _images(count: int) -> dict[str, VectorArray]:
    return {f"/{n}": _VECTORS[n] for n in range(count)}


def test_a_pointer_that_went_back_misleads_nobody(files: DirectoryIndexFiles) -> None:
    _publish(files, 2)
    current = files.index_prefix / "CURRENT"
    old = current.read_bytes()
    newest = _publish(files, 3)[-1]
    names = current.read_bytes()
    current.write_bytes(old)
    assert DirectoryIndexFiles(files.index_prefix).current() == newest
    assert files.current() == newest
    assert_holds(files, _images(5), dim=_DIM)
    files.heal()
    assert current.read_bytes() == names
    files.heal()
    assert current.read_bytes() == names


def test_a_pointer_that_went_back_to_what_is_swept_misleads_nobody(
    files: DirectoryIndexFiles,
) -> None:
    _publish(files, 1)
    current = files.index_prefix / "CURRENT"
    old = current.read_bytes()
    newest = _publish(files, 7)[-1]
    files.sweep(keep_jobs=[])
    names = current.read_bytes()
    current.write_bytes(old)
    assert DirectoryIndexFiles(files.index_prefix).current() == newest
    files.heal()
    assert current.read_bytes() == names
    # Where nothing says what came later it is damage, as it was.
    shutil.rmtree(files.index_prefix / "successors")
    current.write_bytes(old)
    with pytest.raises(CorruptIndex, match="is missing"):
        DirectoryIndexFiles(files.index_prefix).current()


def test_an_index_of_an_older_release_goes_on(files: DirectoryIndexFiles) -> None:
    _publish(files, 5)
    shutil.rmtree(files.index_prefix / "successors")
    newest = _publish(files, 1)[-1]
    assert claimed_generations(files.index_prefix) == {5}
    files.sweep(keep_jobs=[])
    assert files.current() == newest
    _publish(files, 3)
    files.sweep(keep_jobs=[])
    assert_holds(files, _images(9), dim=_DIM)
    # Those of kept generations, and what names the oldest of them.
    assert claimed_generations(files.index_prefix) == {6, 7, 8}


def test_a_second_successor_is_refused(files: DirectoryIndexFiles) -> None:
    manifests = _publish(files, 2)
    late = files.index_prefix / "manifests" / "00000002-7.json"
    late.write_bytes((files.index_prefix / "manifests" / "00000001-1.json").read_bytes())
    with pytest.raises(LeaseLost, match="has a successor already"):
        claim(files.index_prefix, "manifests/00000002-7.json", before=1)
    with pytest.raises(LeaseLost, match="was swept before"):
        claim(files.index_prefix, "manifests/00000009-7.json", before=2)
    # The same claim once more is no second one: NFS may have lost the first answer.
    claim(files.index_prefix, "manifests/00000002-1.json", before=1)
    assert files.current() == manifests[-1]


def test_what_was_prepared_before_a_seal_is_refused_after_it(files: DirectoryIndexFiles) -> None:
    before = _publish(files, 2)[-1]
    part = files.write_part("late", 0, 1, make_part({"/9": _VECTORS[9]}, dim=_DIM))
    with pytest.raises(LeaseLost, match="Fence 1 cannot seal"):
        files.seal(1)
    new = DirectoryIndexFiles(files.index_prefix, term=lambda: 3)
    sealed = new.seal(2)
    assert sealed is not None
    assert (sealed.generation, sealed.fence, sealed.merge_fence) == (3, 2, 2)
    assert sealed.segments == before.segments
    assert (sealed.only_moves, sealed.base_generation) == (True, before.base_generation)
    with pytest.raises(LeaseLost):
        files.commit(make_commit(before, dim=_DIM, parts=[part]))
    with pytest.raises(LeaseLost, match="Fence 1 may not publish"):
        files.commit(make_commit(files.current(), dim=_DIM, parts=[part]))
    with pytest.raises(LeaseLost, match="no longer the current one"):
        republish(files.index_prefix, before, after=before.generation, fence=9)
    assert files.current() == sealed
    assert_holds(files, _images(2), dim=_DIM)
    assert examine_files(files.index_prefix).findings == ()


def test_nothing_is_sealed_where_nothing_was_published(files: DirectoryIndexFiles) -> None:
    assert files.seal(4) is None
    files.index_prefix.mkdir()
    assert files.seal(4) is None


def test_a_holder_of_an_older_term_keeps_no_newer_one_waiting(files: DirectoryIndexFiles) -> None:
    _publish(files, 1)
    prefix = files.index_prefix
    with publish_lock(prefix, term=lambda: 1).held():
        new = DirectoryIndexFiles(prefix, lock_wait_seconds=0.01, term=lambda: 2)
        new.seal(2)
        publish_images(new, {"/1": _VECTORS[1]}, fence=2, chunk=1)
    assert sorted(path.name for path in prefix.glob("LOCK*")) == ["LOCK", "LOCK-2"]


def test_a_sweep_deletes_nothing_of_a_higher_fence(files: DirectoryIndexFiles) -> None:
    _publish(files, 2)
    prefix = files.index_prefix
    others = [
        "segments/00000009-5.parquet",
        "segments/00000009-5.faiss.0123456789ab.tmp",
        "tombstones/00000009-5.parquet",
        "manifests/00000001-5.json",
        "parts/other/000000-5-01234567.parquet",
        "parts/other/000001-5-01234567.parquet.0123456789ab.tmp",
    ]
    (prefix / "parts" / "other" / "merge-5").mkdir(parents=True)
    for name in others:
        (prefix / name).write_bytes(b"half")
    part = files.write_part("gone", 0, 4, make_part({"/9": _VECTORS[9]}, dim=_DIM))
    files.sweep(keep_jobs=[], fence=4)
    assert not (prefix / part).exists()
    assert all((prefix / name).exists() for name in (*others, "parts/other/merge-5"))
    files.sweep(keep_jobs=[], fence=5)
    assert not any((prefix / name).exists() for name in (*others, "parts/other/merge-5"))
    assert_holds(files, _images(2), dim=_DIM)


def test_nothing_is_forgotten_while_a_manifest_is_there_that_may_not_be_published(
    files: DirectoryIndexFiles,
) -> None:
    _publish(files, 6)
    waiting = files.index_prefix / "manifests" / "00000009-7.json"
    waiting.write_bytes(b"{}")
    files.sweep(keep_jobs=[], fence=1)
    # Its owner may be about to claim to follow any of them.
    assert claimed_generations(files.index_prefix) == {0, 1, 2, 3, 4, 5}
    with pytest.raises(LeaseLost, match=r"Generation 2 of .* has a successor"):
        claim(files.index_prefix, "manifests/00000009-7.json", before=2)
    waiting.unlink()
    files.sweep(keep_jobs=[], fence=1)
    assert claimed_generations(files.index_prefix) == {3, 4, 5}


def test_a_repair_ends_the_line_that_it_cannot_read(files: DirectoryIndexFiles) -> None:
    manifests = _publish(files, 4)
    prefix = files.index_prefix
    (prefix / "manifests" / "00000004-1.json").unlink()
    with pytest.raises(CorruptIndex, match="is missing"):
        DirectoryIndexFiles(prefix).current()
    with publish_lock(prefix).held():
        mended = mend_pointer(prefix, known_generation=3).manifest
    assert mended is not None
    assert mended.generation > 4
    assert mended.segments == manifests[2].segments
    assert files.current() == mended
    late = "manifests/00000005-0.json"
    (prefix / late).write_bytes((prefix / "manifests" / "00000003-1.json").read_bytes())
    for before in range(4):
        with pytest.raises(LeaseLost):
            claim(prefix, late, before=before)
    publish_images(files, {"/9": _VECTORS[9]}, chunk=9, fence=9)
    assert_holds(files, {**_images(3), "/9": _VECTORS[9]}, dim=_DIM)


def test_a_generation_that_comes_back_lies_in_files_of_its_own(files: DirectoryIndexFiles) -> None:
    """A sweeper that was replaced may be about to delete those that it had."""
    first, second = _publish(files, 2)
    gone = publish_images(files, {}, gone=["/0"], chunk=3)
    files.merge(Merge(1, "merge", frozenset(s.number for s in gone.segments)))
    with publish_lock(files.index_prefix).held():
        back = roll_back(files.index_prefix, generation=2, known_generation=0)
    assert {s.parquet.name for s in back.segments}.isdisjoint(
        s.parquet.name for s in second.segments
    )
    for segment in second.segments:
        for file in segment.files:
            (files.index_prefix / file.name).unlink()
    assert_holds(files, _images(2), dim=_DIM)
    assert first.generation == 1
