"""What a commit publishes, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from imagedex.core.errors import CorruptIndex, FingerprintMismatch, LeaseLost, StorageError
from imagedex.core.images import RowLocation
from imagedex.segments import DirectoryIndexFiles, durable, succession
from imagedex.segments.lock import publish_lock
from imagedex.testing.index_files import (
    FINGERPRINT,
    assert_holds,
    live_locations,
    make_commit,
    make_facts,
    make_part,
    publish_images,
    unit_vectors,
)

_DIM = 8
_A, _B, _C, _D = unit_vectors(4, _DIM)


@pytest.fixture
def files(tmp_path: Path) -> DirectoryIndexFiles:
    return DirectoryIndexFiles(tmp_path / "index")


def test_an_index_that_was_never_written_has_no_generation(files: DirectoryIndexFiles) -> None:
    assert files.current() is None
    assert files.sweep(keep_jobs=[]) == 0
    assert not files.index_prefix.exists()


def test_a_manifest_tells_what_was_committed(files: DirectoryIndexFiles) -> None:
    parts = [
        files.write_part("job", 4, 2, make_part({"/a": _A, "/b": _B}, dim=_DIM)),
        files.write_part("job", 5, 2, make_part({}, dim=_DIM)),
        files.write_part("job", 6, 2, make_part({"/c": _C}, dim=_DIM, version=3)),
    ]
    manifest = files.commit(
        make_commit(None, dim=_DIM, parts=parts, fence=2, chunks=(4, 5, 6), job_id="idx_1")
    )
    assert manifest == files.current()
    assert (manifest.generation, manifest.fence, manifest.images) == (1, 2, 3)
    (segment,) = manifest.segments
    assert (segment.number, segment.generation, segment.rows) == (1, 1, 3)
    assert (segment.job_id, segment.chunks) == ("idx_1", (4, 5, 6))
    assert [(location, facts) for location, facts in files.read_facts(segment)] == [
        (RowLocation(1, 0), make_facts("/a")),
        (RowLocation(1, 1), make_facts("/b")),
        (RowLocation(1, 2), make_facts("/c", version=3)),
    ]
    (block,) = files.read_images(segment)
    assert block.first_row == 0
    assert block.facts == (make_facts("/a"), make_facts("/b"), make_facts("/c", version=3))
    np.testing.assert_array_equal(block.vectors, [_A, _B, _C])


def test_a_parquet_file_alone_tells_model_and_vectors(files: DirectoryIndexFiles) -> None:
    manifest = publish_images(files, {"/a": _A, "/b": _B})
    table = pq.read_table(files.index_prefix / manifest.segments[0].parquet.name)
    metadata = table.schema.metadata
    assert metadata[b"imagedex.fingerprint"] == FINGERPRINT.encode()
    assert metadata[b"imagedex.dim"] == str(_DIM).encode()
    assert metadata[b"imagedex.version"] == b"1"
    assert table.column("vector").to_pylist() == [_A.tolist(), _B.tolist()]
    assert table.column("content_hash").to_pylist() == [make_facts("/a").content_hash] * 2


def test_the_file_of_a_commit_s_only_part_becomes_the_segment_s(files: DirectoryIndexFiles) -> None:
    part = files.write_part("job", 0, 1, make_part({"/a": _A, "/b": _B}, dim=_DIM))
    manifest = files.commit(make_commit(None, dim=_DIM, parts=[part]))
    (segment,) = manifest.segments
    path = files.index_prefix / segment.parquet.name
    assert path.samefile(files.index_prefix / part)  # Its vectors were written once.
    files.remove_parts("job")
    assert segment.parquet.bytes == path.stat().st_size
    assert [facts.image_path for _, facts in files.read_facts(segment)] == ["/a", "/b"]
    assert files.open(manifest, None).search(_B[np.newaxis], [1])[0].image_paths == ("/b",)


def test_what_is_added_later_leaves_earlier_files_alone(files: DirectoryIndexFiles) -> None:
    publish_images(files, {"/a": _A})
    before = {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in files.index_prefix.rglob("*")
        if path.is_file() and path.name not in ("CURRENT", "LOCK")
    }
    publish_images(files, {"/b": _B}, chunk=1)
    publish_images(files, {"/a": _C}, chunk=2)
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before}
    assert after == before
    assert_holds(files, {"/a": _C, "/b": _B}, dim=_DIM)


def test_an_image_in_two_parts_is_refused_and_nothing_is_published(
    files: DirectoryIndexFiles,
) -> None:
    first = publish_images(files, {"/z": _D})
    parts = [
        files.write_part("job", 1, 1, make_part({"/a": _A, "/b": _B}, dim=_DIM)),
        files.write_part("job", 2, 1, make_part({"/b": _C}, dim=_DIM)),
    ]
    with pytest.raises(ValueError, match="'/b'"):
        files.commit(make_commit(first, dim=_DIM, parts=parts))
    assert files.current() == first


@pytest.mark.parametrize("location", [RowLocation(1, 1), RowLocation(2, 0), RowLocation(1, -1)])
def test_a_row_that_does_not_exist_cannot_be_removed(
    files: DirectoryIndexFiles, location: RowLocation
) -> None:
    first = publish_images(files, {"/a": _A})
    with pytest.raises(ValueError, match="cannot be removed"):
        files.commit(make_commit(first, dim=_DIM, removed=[location]))
    with pytest.raises(ValueError, match="cannot be removed"):
        DirectoryIndexFiles(files.index_prefix.with_name("new")).commit(
            make_commit(None, dim=_DIM, removed=[location])
        )
    assert files.current() == first


def test_removing_a_row_twice_counts_once(files: DirectoryIndexFiles) -> None:
    manifest = publish_images(files, {"/a": _A, "/b": _B})
    row = live_locations(files, manifest)["/a"]
    manifest = files.commit(make_commit(manifest, dim=_DIM, removed=[row, row]))
    assert manifest.images == 1
    manifest = files.commit(make_commit(manifest, dim=_DIM, removed=[row]))
    assert (manifest.images, len(manifest.tombstones), manifest.generation) == (1, 1, 3)
    # Neither does it to a process that has not seen the first time.
    again = DirectoryIndexFiles(files.index_prefix)
    assert again.commit(make_commit(manifest, dim=_DIM, removed=[row])).images == 1
    assert again.read_tombstones(manifest.tombstones) == {row}
    assert_holds(files, {"/b": _B}, dim=_DIM)


def test_a_stale_fence_may_not_publish(files: DirectoryIndexFiles) -> None:
    publish_images(files, {"/a": _A}, fence=5)
    current = publish_images(files, {"/b": _B}, fence=7)
    with pytest.raises(LeaseLost, match="Fence 6"):
        files.commit(make_commit(current, dim=_DIM, fence=6))
    assert files.current() == current


def test_a_commit_upon_an_older_generation_is_refused(files: DirectoryIndexFiles) -> None:
    first = publish_images(files, {"/a": _A})
    second = publish_images(files, {"/b": _B})
    for basis in (None, first):
        with pytest.raises(LeaseLost, match="Generation 2 is current"):
            files.commit(make_commit(basis, dim=_DIM))
    assert files.current() == second


def test_vectors_of_another_model_are_refused(files: DirectoryIndexFiles) -> None:
    first = publish_images(files, {"/a": _A})
    commit = replace(make_commit(first, dim=_DIM), fingerprint="other-2", model_name="other")
    with pytest.raises(FingerprintMismatch, match=r"tiny-1.*other-2"):
        files.commit(commit)
    with pytest.raises(FingerprintMismatch):
        files.commit(make_commit(first, dim=_DIM + 1))
    assert files.current() == first


def test_a_part_of_another_dim_is_refused(files: DirectoryIndexFiles) -> None:
    name = files.write_part("job", 0, 1, make_part({"/a": unit_vectors(1, 3)[0]}, dim=3))
    with pytest.raises(CorruptIndex, match=r"length 3 .* expects 8"):
        files.commit(make_commit(None, dim=_DIM, parts=[name]))


@pytest.mark.parametrize(
    "name", ["../outside.parquet", "parts/../../x.parquet", "parts/j/1-1.parquet.tmp", "CURRENT"]
)
def test_only_names_of_parts_are_read_as_parts(files: DirectoryIndexFiles, name: str) -> None:
    with pytest.raises(ValueError, match="does not name a part"):
        files.commit(make_commit(None, dim=_DIM, parts=[name]))
    with pytest.raises(ValueError, match="does not name a part"):
        files.read_part_facts(name)


def test_a_missing_part_is_named(files: DirectoryIndexFiles) -> None:
    name = files.write_part("job", 7, 1, make_part({"/a": _A}, dim=_DIM))
    assert files.part_fingerprint(name) == FINGERPRINT
    (files.index_prefix / name).unlink()
    assert files.part_fingerprint(name) is None
    with pytest.raises(CorruptIndex, match=r"000007-1-[0-9a-f]{8}\.parquet"):
        files.commit(make_commit(None, dim=_DIM, parts=[name]))
    assert files.current() is None


def test_a_failed_commit_leaves_no_files_and_the_next_succeeds(files: DirectoryIndexFiles) -> None:
    first = publish_images(files, {"/a": _A})
    folder = files.index_prefix / "manifests"
    names = {path for path in files.index_prefix.rglob("*") if path.is_file()}
    part = files.write_part("job", 1, 1, make_part({"/b": _B}, dim=_DIM))
    folder.rename(files.index_prefix / "elsewhere")
    folder.write_text("in the way")
    with pytest.raises(StorageError):
        files.commit(make_commit(first, dim=_DIM, parts=[part]))
    folder.unlink()
    (files.index_prefix / "elsewhere").rename(folder)
    left = {path for path in files.index_prefix.rglob("*") if path.is_file()}
    assert left - names == {files.index_prefix / part}
    files.commit(make_commit(first, dim=_DIM, parts=[part]))
    assert_holds(files, {"/a": _A, "/b": _B}, dim=_DIM)


def test_numbers_left_over_by_a_crash_are_not_used_again(files: DirectoryIndexFiles) -> None:
    first = publish_images(files, {"/a": _A})
    left = [
        files.index_prefix / "manifests" / "00000002-1.json",
        files.index_prefix / "segments" / "00000002-1.parquet",
        files.index_prefix / "segments" / "00000003-9.faiss",
    ]
    for path in left:
        path.write_text("half")
    assert files.current() == first
    second = publish_images(files, {"/b": _B})
    assert (second.generation, second.segments[-1].number) == (3, 4)
    assert second.segments[-1].generation == 3
    assert [path.read_text() for path in left] == ["half"] * 3
    assert_holds(files, {"/a": _A, "/b": _B}, dim=_DIM)


def _fail_to_flush(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Let the next flush of each of these directories fail: no file system does so on demand."""
    real = durable.sync_directory
    left = list(folders)

    def fail_once(path: Path) -> None:
        if path in left:
            left.remove(path)
            raise OSError(5, "Input/output error")
        real(path)

    for module in (durable, succession):
        monkeypatch.setattr(module, "sync_directory", fail_once)


@pytest.mark.parametrize("folder", [".", "successors"])
def test_a_generation_stands_when_its_claim_or_its_pointer_is_durable(
    files: DirectoryIndexFiles, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    publish_images(files, {"/a": _A})
    with monkeypatch.context() as patch:
        _fail_to_flush(patch, files.index_prefix / folder)
        second = publish_images(files, {"/b": _B}, chunk=1)
    assert files.current() == second
    assert_holds(files, {"/a": _A, "/b": _B}, dim=_DIM)


def test_what_is_published_but_not_durable_is_no_success_and_loses_no_file(
    files: DirectoryIndexFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish_images(files, {"/a": _A})
    prefix = files.index_prefix
    with monkeypatch.context() as patch:
        _fail_to_flush(patch, prefix, prefix / "successors")
        with pytest.raises(StorageError, match="CURRENT"):
            publish_images(files, {"/b": _B}, chunk=1)
    # Another owner may have followed it already: it is not taken back.
    second = files.current()
    assert second is not None
    assert second.generation == first.generation + 1
    assert_holds(files, {"/a": _A, "/b": _B}, dim=_DIM)
    with pytest.raises(LeaseLost, match=f"Generation {second.generation} is current"):
        files.commit(make_commit(first, dim=_DIM))


def test_a_commit_waits_no_longer_than_it_was_told_for_another(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path, lock_wait_seconds=0.05)
    with publish_lock(tmp_path, wait_seconds=1).held():
        with pytest.raises(StorageError, match="has held"):
            files.commit(make_commit(None, dim=_DIM))
        assert files.current() is None
    files.commit(make_commit(None, dim=_DIM))


def test_a_share_that_is_not_mounted_gets_no_new_index(files: DirectoryIndexFiles) -> None:
    first = publish_images(files, {"/a": _A})
    away = files.index_prefix.with_name("unmounted")
    files.index_prefix.rename(away)
    with pytest.raises(StorageError, match="is mounted"):
        files.commit(make_commit(first, dim=_DIM))
    assert not files.index_prefix.exists()
    # The same where the mount point is left as an empty directory.
    files.index_prefix.mkdir()
    with pytest.raises(LeaseLost, match="Generation 0 is current"):
        files.commit(make_commit(first, dim=_DIM))
    assert [path.name for path in files.index_prefix.iterdir()] == ["LOCK"]
    (files.index_prefix / "LOCK").unlink()
    files.index_prefix.rmdir()
    away.rename(files.index_prefix)
    files.commit(make_commit(first, dim=_DIM))


@pytest.mark.parametrize("fingerprint", ["other-2", ""])
def test_a_part_of_another_model_is_not_published(tmp_path: Path, fingerprint: str) -> None:
    files = DirectoryIndexFiles(tmp_path)
    mine = files.write_part("job", 0, 1, make_part({"/a": _A}, dim=_DIM))
    part = replace(make_part({"/b": _B}, dim=_DIM), fingerprint=fingerprint)
    other = files.write_part("job", 1, 1, part)
    assert files.part_fingerprint(other) == fingerprint
    with pytest.raises(FingerprintMismatch, match=r"000001-1.*run its chunk again"):
        files.commit(make_commit(None, dim=_DIM, parts=[mine, other]))
    assert files.current() is None
    files.remove_part(other)
    files.remove_part(other)
    assert files.part_fingerprint(other) is None
