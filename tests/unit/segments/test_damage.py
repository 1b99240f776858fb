"""Damaged, cut and missing files are found out and named, never served."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import pytest
from structlog.testing import capture_logs

from imagedex.core.errors import CorruptIndex, StorageError
from imagedex.segments import DirectoryIndexFiles, Manifest
from imagedex.testing.index_files import (
    expected_hits,
    found_hits,
    make_commit,
    publish_images,
    unit_vectors,
)
from support.structures import faiss_of, files_with_faiss

_DIM = 8
_VECTORS = unit_vectors(6, _DIM)
_IMAGES = {f"/{i}": vector for i, vector in enumerate(_VECTORS)}


@pytest.fixture
def files(tmp_path: Path) -> DirectoryIndexFiles:
    files = files_with_faiss(tmp_path / "index")
    publish_images(files, _IMAGES | {"/gone": _VECTORS[0]})
    publish_images(files, {}, gone=["/gone"])
    return files


def _current(files: DirectoryIndexFiles) -> Manifest:
    manifest = files.current()
    assert manifest is not None
    return manifest


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _delete(path: Path) -> None:
    path.unlink()


_REMEDY = "restore it from a copy of the index, or index again under another prefix"
_DAMAGES = [_cut, _flip, _empty, _delete]


@pytest.mark.parametrize("damage", _DAMAGES)
def test_a_damaged_parquet_file_is_named(files: DirectoryIndexFiles, damage: object) -> None:
    manifest = _current(files)
    name = manifest.segments[0].parquet.name
    assert callable(damage)
    damage(files.index_prefix / name)
    with pytest.raises(CorruptIndex, match=f"{name}.*{_REMEDY}"):
        files.open(manifest, None)


@pytest.mark.parametrize("damage", [_cut, _empty, _delete])
def test_facts_of_a_damaged_parquet_file_are_not_believed(
    files: DirectoryIndexFiles, damage: object
) -> None:
    segment = _current(files).segments[0]
    assert callable(damage)
    damage(files.index_prefix / segment.parquet.name)
    with pytest.raises(CorruptIndex, match=segment.parquet.name):
        list(files.read_facts(segment))


@pytest.mark.parametrize("damage", _DAMAGES)
def test_damaged_tombstones_are_named(files: DirectoryIndexFiles, damage: object) -> None:
    manifest = _current(files)
    name = manifest.tombstones[0].file.name
    assert callable(damage)
    damage(files.index_prefix / name)
    fresh = DirectoryIndexFiles(files.index_prefix)
    with pytest.raises(CorruptIndex, match=name):
        fresh.open(manifest, None)
    with pytest.raises(CorruptIndex, match=name):
        fresh.read_tombstones(manifest.tombstones)


@pytest.mark.parametrize("damage", _DAMAGES)
def test_a_damaged_faiss_file_is_made_good_from_the_parquet_file(
    files: DirectoryIndexFiles, damage: object
) -> None:
    manifest = _current(files)
    assert callable(damage)
    damage(files.index_prefix / faiss_of(manifest.segments[0]).name)
    with capture_logs() as logs:
        generation = files.open(manifest, None)
    assert [entry["event"] for entry in logs] == ["faiss_file_rebuilt_in_memory"]
    query = unit_vectors(1, _DIM, seed=5)[0]
    assert found_hits(generation, query, 9) == expected_hits(_IMAGES, query, 9)


def test_a_faiss_file_of_another_kind_is_not_searched(tmp_path: Path) -> None:
    from imagedex.segments._faiss import FaissFile

    path = tmp_path / "x.faiss"
    index = faiss.IndexFlatL2(_DIM)
    index.add(_VECTORS)
    faiss.write_index(index, str(path))
    with pytest.raises(CorruptIndex, match="is not an IndexFlatIP of 6 x 8"):
        FaissFile.open(path, rows=6, dim=_DIM)


@pytest.mark.parametrize("damage", _DAMAGES)
def test_a_damaged_manifest_is_named(files: DirectoryIndexFiles, damage: object) -> None:
    name = "manifests/00000002-1.json"
    assert callable(damage)
    damage(files.index_prefix / name)
    with pytest.raises(CorruptIndex, match=name):
        files.current()
    with pytest.raises(CorruptIndex, match=name):
        files.commit(make_commit(None, dim=_DIM))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0" * 100,
        "[]",
        "null",
        '{"version": 1}',
        '{"version": 2, "manifest": null, "sha256": null}',
        '{"version": 1, "manifest": "../../etc/passwd", "sha256": "x"}',
        '{"version": 1, "manifest": 3, "sha256": "x"}',
        '{"version": 1, "manifest": null, "sha256": "x"}',
    ],
)
def test_a_damaged_pointer_is_named(files: DirectoryIndexFiles, text: str) -> None:
    (files.index_prefix / "CURRENT").write_text(text)
    with pytest.raises(CorruptIndex, match=rf"CURRENT.*damaged.*{_REMEDY}"):
        files.current()
    with pytest.raises(CorruptIndex, match="CURRENT"):
        files.commit(make_commit(None, dim=_DIM))


@pytest.mark.parametrize("folder", ["manifests", "segments"])
def test_a_lost_pointer_is_damage_and_not_a_new_index(
    files: DirectoryIndexFiles, folder: str
) -> None:
    (files.index_prefix / "CURRENT").unlink()
    other = {"manifests": "segments", "segments": "manifests"}[folder]
    (files.index_prefix / other).rename(files.index_prefix / "elsewhere")
    with pytest.raises(CorruptIndex, match=f"CURRENT.*missing.*{folder}"):
        files.current()
    with pytest.raises(CorruptIndex, match="CURRENT"):
        files.commit(make_commit(None, dim=_DIM))


def test_a_pointer_to_another_version_of_the_manifest_is_damage(
    files: DirectoryIndexFiles,
) -> None:
    pointer = files.index_prefix / "CURRENT"
    document = json.loads(pointer.read_text())
    pointer.write_text(json.dumps(document | {"sha256": "0" * 64}))
    with pytest.raises(CorruptIndex, match="CURRENT expects"):
        files.current()


def test_a_place_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    files = DirectoryIndexFiles(tmp_path / "file")
    with pytest.raises(StorageError, match="Not a directory"):
        files.current()
    with pytest.raises(StorageError):
        files.commit(make_commit(None, dim=_DIM))
