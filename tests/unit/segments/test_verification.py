"""Large files are opened unread, compared with their checksums afterwards, and made good then."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from imagedex.core.errors import CorruptIndex, StorageError
from imagedex.segments import DirectoryIndexFiles, FileEntry, Manifest
from imagedex.segments.durable import storage_errors
from imagedex.segments.generation import DirectoryGeneration
from imagedex.testing.index_files import expected_hits, found_hits, publish_images, unit_vectors
from support.damage import cut, delete, empty
from support.structures import faiss_of, files_with_faiss

_DIM = 64
_VECTORS = unit_vectors(40, _DIM)
_IMAGES = {f"/{i:02d}": vector for i, vector in enumerate(_VECTORS)}
_QUERY = unit_vectors(1, _DIM, seed=5)[0]


def _never() -> bool:
    return False


@pytest.fixture
def files(tmp_path: Path) -> DirectoryIndexFiles:
    files = files_with_faiss(tmp_path / "index", large_bytes=1)
    publish_images(files, _IMAGES)
    return files


def _current(files: DirectoryIndexFiles) -> Manifest:
    manifest = files.current()
    assert manifest is not None
    return manifest


def _change_last_vector(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-40:] = bytes(40)
    path.unlink()
    path.write_bytes(data)


def _change_a_vector_in_parquet(path: Path) -> None:
    data = path.read_bytes()
    vector = _VECTORS[20].tobytes()
    assert data.count(vector) == 1
    path.unlink()
    path.write_bytes(data.replace(vector, bytes(len(vector))))


def _finds_all(generation: DirectoryGeneration) -> bool:
    return found_hits(generation, _QUERY, 40) == expected_hits(_IMAGES, _QUERY, 40)


def test_sound_files_are_compared_once(
    files: DirectoryIndexFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = _current(files)
    assert _finds_all(files.open(manifest, None))
    assert files.verify(manifest, should_stop=_never) == ()
    monkeypatch.setattr("imagedex.segments.verification.require_intact", None)
    assert files.verify(manifest, should_stop=_never) == ()


def test_damaged_vectors_are_found_and_made_good_by_the_next_opening(
    files: DirectoryIndexFiles,
) -> None:
    manifest = _current(files)
    name = faiss_of(manifest.segments[0]).name
    _change_last_vector(files.index_prefix / name)
    before = files.open(manifest, None)
    assert not _finds_all(before)
    (reason,) = files.verify(manifest, should_stop=_never)
    assert name in reason
    assert "SHA-256" in reason
    with capture_logs() as logs:
        after = files.open(manifest, before)
    assert [entry["event"] for entry in logs] == ["faiss_file_rebuilt_in_memory"]
    assert _finds_all(after)
    assert files.verify(manifest, should_stop=_never) == ()
    # What was made good is shared from then on.
    with capture_logs() as logs:
        assert _finds_all(files.open(manifest, after))
    assert logs == []


def test_vectors_that_were_restored_are_used_again(files: DirectoryIndexFiles) -> None:
    manifest = _current(files)
    path = files.index_prefix / faiss_of(manifest.segments[0]).name
    whole = path.read_bytes()
    _change_last_vector(path)
    assert len(files.verify(manifest, should_stop=_never)) == 1
    path.write_bytes(whole)
    with capture_logs() as logs:
        assert _finds_all(files.open(manifest, None))
    assert logs == []
    assert files.verify(manifest, should_stop=_never) == ()


def test_what_is_known_to_be_damaged_is_read_again_only_when_it_has_changed(
    files: DirectoryIndexFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = _current(files)
    path = files.index_prefix / manifest.segments[0].parquet.name
    whole, times = path.read_bytes(), path.stat()
    _change_a_vector_in_parquet(path)
    assert len(files.verify(manifest, should_stop=_never)) == 1
    with monkeypatch.context() as patch:
        patch.setattr("imagedex.segments.verification.require_intact", None)
        for _ in range(2):
            with pytest.raises(CorruptIndex, match="SHA-256"):
                files.open(manifest, None)
    path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(CorruptIndex):
        files.open(manifest, None)
    with monkeypatch.context() as patch:
        patch.setattr("imagedex.segments.verification.require_intact", None)
        with pytest.raises(CorruptIndex):
            files.open(manifest, None)
    # As a restored copy that keeps the times of what it was made of.
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _finds_all(files.open(manifest, None))


def test_a_file_that_could_not_be_read_is_compared_again(
    files: DirectoryIndexFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = _current(files)

    def fail(index_prefix: Path, entry: FileEntry, **_: object) -> None:
        with storage_errors("read", index_prefix / entry.name):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("imagedex.segments.verification.require_intact", fail)
        assert len(files.verify(manifest, should_stop=_never)) == 2
        with pytest.raises(StorageError):
            files.open(manifest, None)
    # A share that was away is there again, and no file has changed.
    with capture_logs() as logs:
        assert _finds_all(files.open(manifest, None))
    assert logs == []


def test_a_damaged_parquet_file_is_told_and_its_segment_still_searched(
    files: DirectoryIndexFiles,
) -> None:
    manifest = _current(files)
    name = manifest.segments[0].parquet.name
    _change_a_vector_in_parquet(files.index_prefix / name)
    before = files.open(manifest, None)
    (reason,) = files.verify(manifest, should_stop=_never)
    assert name in reason
    assert _finds_all(files.open(manifest, before))
    with pytest.raises(CorruptIndex, match=name):
        files.open(manifest, None)


def test_vectors_that_nothing_can_make_good_are_not_opened_again(
    files: DirectoryIndexFiles,
) -> None:
    manifest = _current(files)
    segment = manifest.segments[0]
    _change_a_vector_in_parquet(files.index_prefix / segment.parquet.name)
    _change_last_vector(files.index_prefix / faiss_of(segment).name)
    before = files.open(manifest, None)
    assert len(files.verify(manifest, should_stop=_never)) == 2
    with pytest.raises(CorruptIndex, match=segment.parquet.name):
        files.open(manifest, before)


@pytest.mark.parametrize("damage", [cut, empty, delete])
def test_a_file_of_another_size_is_found_at_opening(
    files: DirectoryIndexFiles, damage: Callable[[Path], None]
) -> None:
    manifest = _current(files)
    damage(files.index_prefix / faiss_of(manifest.segments[0]).name)
    with capture_logs() as logs:
        assert _finds_all(files.open(manifest, None))
    assert [entry["event"] for entry in logs] == ["faiss_file_rebuilt_in_memory"]
    damage(files.index_prefix / manifest.segments[0].parquet.name)
    with pytest.raises(CorruptIndex, match=manifest.segments[0].parquet.name):
        files.open(manifest, None)


def test_paths_are_never_read_from_damaged_pages(files: DirectoryIndexFiles) -> None:
    manifest = _current(files)
    path = files.index_prefix / manifest.segments[0].parquet.name
    whole = path.read_bytes()
    # The column of paths comes first, behind the four letters and its page's header.
    for place in range(4, 200):
        path.unlink()
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            generation = files.open(manifest, None)
        except CorruptIndex:
            continue
        assert _finds_all(generation), place


def test_a_file_that_is_gone_while_it_is_open_is_no_damage(files: DirectoryIndexFiles) -> None:
    manifest = _current(files)
    generation = files.open(manifest, None)
    (files.index_prefix / faiss_of(manifest.segments[0]).name).unlink()
    assert files.verify(manifest, should_stop=_never) == ()
    assert _finds_all(generation)


def test_a_comparison_ends_when_it_must(files: DirectoryIndexFiles) -> None:
    manifest = _current(files)
    _change_last_vector(files.index_prefix / faiss_of(manifest.segments[0]).name)
    assert files.verify(manifest, should_stop=lambda: True) == ()
    assert len(files.verify(manifest, should_stop=_never)) == 1


def test_small_files_are_compared_at_opening(tmp_path: Path) -> None:
    files = files_with_faiss(tmp_path / "index")
    manifest = publish_images(files, _IMAGES)
    _change_last_vector(files.index_prefix / faiss_of(manifest.segments[0]).name)
    with capture_logs() as logs:
        assert _finds_all(files.open(manifest, None))
    assert [entry["event"] for entry in logs] == ["faiss_file_rebuilt_in_memory"]
    assert files.verify(manifest, should_stop=_never) == ()


def test_what_is_made_good_gives_the_scores_of_the_parquet_file(
    files: DirectoryIndexFiles,
) -> None:
    manifest = _current(files)
    _change_last_vector(files.index_prefix / faiss_of(manifest.segments[0]).name)
    before = files.open(manifest, None)
    files.verify(manifest, should_stop=_never)
    (hits,) = files.open(manifest, before).search(_VECTORS[39:40], [1])
    assert hits.image_paths == ("/39",)
    assert hits.scores[0] == np.float32((_VECTORS[39].astype(np.float64) ** 2).sum())
