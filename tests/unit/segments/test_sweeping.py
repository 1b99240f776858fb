"""Sweeping deletes what no generation needs, and nothing else."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from imagedex.core.errors import CorruptIndex, StorageError
from imagedex.segments import DirectoryIndexFiles
from imagedex.testing.index_files import (
    assert_holds,
    expected_hits,
    found_hits,
    live_locations,
    make_commit,
    make_part,
    publish_images,
    unit_vectors,
)

_DIM = 8
_VECTORS = unit_vectors(12, _DIM)


def _grow(files: DirectoryIndexFiles, generations: int) -> dict[str, np.ndarray]:
    """Publish generations that each change the image before."""
    images: dict[str, np.ndarray] = {}
    for number in range(generations):
        changed = {f"/{i}": _VECTORS[number] for i in (number - 1, number) if i >= 0}
        publish_images(files, changed, chunk=number)
        images.update(changed)
    return images


def test_the_last_three_generations_can_be_opened_after_a_sweep(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    manifests = [
        publish_images(files, {f"/{number}": _VECTORS[number]}, chunk=number) for number in range(6)
    ]
    # Three manifests, what followed older ones and the six parts go; all segments are in use.
    assert files.sweep(keep_jobs=[]) == 12
    assert sorted(path.name for path in (tmp_path / "manifests").iterdir()) == [
        "00000004-1.json",
        "00000005-1.json",
        "00000006-1.json",
    ]
    for manifest in manifests[3:]:
        assert files.open(manifest, None).manifest == manifest
    assert not list((tmp_path / "parts").iterdir())


def test_a_reader_keeps_answering_after_its_files_were_deleted(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    images = _grow(files, 4)
    manifest = files.current()
    assert manifest is not None
    old = files.open(manifest, None)
    for folder in ("segments", "tombstones", "manifests"):
        for path in (tmp_path / folder).iterdir():
            path.unlink()
    assert found_hits(old, _VECTORS[7], 9) == expected_hits(images, _VECTORS[7], 9)


def test_leftovers_of_crashes_are_deleted(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    images = _grow(files, 2)
    files.sweep(keep_jobs=[])
    for name in (
        "CURRENT.0123456789ab.tmp",
        "segments/00000009-1.parquet",
        "segments/00000009-1.faiss.0123456789ab.tmp",
        "tombstones/00000009-1.parquet",
        "manifests/00000009-1.json.0123456789ab.tmp",
    ):
        (tmp_path / name).write_bytes(b"half")
    assert files.sweep(keep_jobs=[]) == 5
    assert files.sweep(keep_jobs=[]) == 0
    assert_holds(files, images, dim=_DIM)


def test_parts_of_kept_jobs_stay_even_half_written_ones(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    part = make_part({"/a": _VECTORS[0]}, dim=_DIM)
    kept = files.write_part("kept", 0, 1, part)
    files.write_part("gone", 0, 1, part)
    writing = tmp_path / "parts" / "kept" / "000001-1.parquet.0123456789ab.tmp"
    writing.write_bytes(b"half")
    assert files.sweep(keep_jobs=["kept"]) == 1
    assert files.part_fingerprint(kept) is not None
    assert writing.exists()
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["kept"]


def test_what_cannot_be_deleted_is_told_of_after_all_else_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = DirectoryIndexFiles(tmp_path)
    images = _grow(files, 2)
    part = make_part({"/a": _VECTORS[0]}, dim=_DIM)
    for chunk in range(3):
        files.write_part("job", chunk, 1, part)
    real = Path.unlink
    busy: list[Path] = []

    def unlink(path: Path, *, missing_ok: bool = False) -> None:
        if not busy or path in busy:
            busy.append(path)
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        real(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(StorageError, match="busy"):
            files.sweep(keep_jobs=[])
        assert list(tmp_path.glob("parts/job/*")) == busy
    assert files.sweep(keep_jobs=[]) == 1
    assert not busy[0].exists()
    assert_holds(files, images, dim=_DIM)


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    _grow(files, 2)
    files.sweep(keep_jobs=[])
    for name in ("notes.txt", "segments/README", "manifests/copy.json", "photo.tmp"):
        (tmp_path / name).write_text("mine")
    (tmp_path / "parts" / "mine.txt").write_text("mine")
    assert files.sweep(keep_jobs=[]) == 0


def test_nothing_is_deleted_while_the_current_generation_cannot_be_read(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    _grow(files, 5)
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "CURRENT").write_text("{")
    with pytest.raises(CorruptIndex):
        files.sweep(keep_jobs=[])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_older_manifest_keeps_no_files_and_stops_no_sweep(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    images = _grow(files, 3)
    older = tmp_path / "manifests" / "00000002-1.json"
    older.write_text("{}")
    files.sweep(keep_jobs=[])
    assert not older.exists()
    assert_holds(files, images, dim=_DIM)


def test_generations_go_on_rising_after_a_sweep(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    _grow(files, 2)
    current = files.current()
    (tmp_path / "manifests" / "00000007-1.json").write_text("left over by a crash")
    files.sweep(keep_jobs=[])
    gone = live_locations(files, current).values()
    manifest = files.commit(make_commit(current, dim=_DIM, removed=gone))
    assert (manifest.generation, manifest.images) == (8, 0)
