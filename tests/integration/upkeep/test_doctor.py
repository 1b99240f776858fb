"""The doctor finds what is wrong, says it, and changes nothing."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from imagedex.catalog import SqlCatalog
from imagedex.database import Database
from imagedex.jobs import SqlJobStore
from imagedex.segments import DirectoryIndexFiles, FindingKind, Manifest
from imagedex.testing.index_files import make_commit
from imagedex.upkeep import Diagnosis, Doctor
from support.controller import Controller
from support.damage import DAMAGES
from support.forging import forge
from support.structures import faiss_of


def _examine(controller: Controller) -> Diagnosis:
    """Examine as a process of its own does."""
    database = Database(f"sqlite:///{controller.database_file}")
    try:
        return Doctor(
            DirectoryIndexFiles(controller.prefix),
            database=database,
            catalog=SqlCatalog(database),
            jobs=SqlJobStore(database),
        ).examine()
    finally:
        database.close()


def _kinds(controller: Controller) -> list[FindingKind]:
    return [finding.kind for finding in _examine(controller).findings]


def _current(controller: Controller) -> Manifest:
    manifest = DirectoryIndexFiles(controller.prefix).current()
    assert manifest is not None
    return manifest


def _state(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def test_a_healthy_index_has_no_findings(controller: Controller) -> None:
    before = _state(controller.prefix)
    diagnosis = _examine(controller)
    assert diagnosis.findings == ()
    assert diagnosis.is_healthy
    manifest = _current(controller)
    assert (diagnosis.generation, diagnosis.images) == (manifest.generation, 6)
    assert manifest.tombstones
    assert diagnosis.files_checked == 2 * len(manifest.segments) + len(manifest.tombstones)
    assert diagnosis.bytes_checked > 0
    assert _state(controller.prefix) == before


def test_where_nothing_was_ever_indexed_nothing_is_found_or_made(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'imagedex.db'}")
    diagnosis = Doctor(
        DirectoryIndexFiles(tmp_path / "index"),
        database=database,
        catalog=SqlCatalog(database),
        jobs=SqlJobStore(database),
    ).examine()
    assert (diagnosis.findings, diagnosis.generation) == ((), 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["parquet", "faiss", "tombstones"])
def test_each_damaged_or_missing_file_is_found_and_named(
    controller: Controller, kind: str, damage: Callable[[Path], None]
) -> None:
    manifest = _current(controller)
    name = {
        "parquet": manifest.segments[0].parquet.name,
        "faiss": faiss_of(manifest.segments[0]).name,
        "tombstones": manifest.tombstones[0].file.name,
    }[kind]
    damage(controller.prefix / name)
    (finding,) = _examine(controller).findings
    assert finding.kind.value == kind
    assert finding.path == str(controller.prefix / name)
    assert name in finding.message
    assert finding.remedy


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_lost_or_half_written_pointer_is_found(
    controller: Controller, damage: Callable[[Path], None]
) -> None:
    damage(controller.prefix / "CURRENT")
    assert _kinds(controller) == [FindingKind.POINTER]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_found(
    controller: Controller, damage: Callable[[Path], None]
) -> None:
    manifest = _current(controller)
    damage(controller.prefix / f"manifests/{manifest.generation:08d}-{manifest.fence}.json")
    assert _kinds(controller) == [FindingKind.MANIFEST]


def test_a_search_structure_of_other_vectors_is_found_though_its_checksum_is_right(
    controller: Controller,
) -> None:
    manifest = _current(controller)
    entry = manifest.segments[0]
    forge(controller.prefix, faiss_of(entry))
    (finding,) = _examine(controller).findings
    assert finding.kind is FindingKind.ALIGNMENT
    assert f"row {entry.rows - 1}" in finding.message


def test_files_that_no_generation_needs_are_found(controller: Controller) -> None:
    for name in (
        "segments/00000090-1.parquet",
        "segments/00000091-1.faiss.0123456789ab.tmp",
        "parts/nobody/000000-1.parquet",
        "CURRENT.0123456789ab.tmp",
    ):
        path = controller.prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    (controller.prefix / "notes.txt").write_text("not ours")
    diagnosis = _examine(controller)
    assert {finding.kind for finding in diagnosis.findings} == {FindingKind.ORPHAN}
    assert len(diagnosis.findings) == 4


def test_what_an_unfinished_job_left_is_no_orphan(controller: Controller) -> None:
    controller.runner.close()
    controller.paint("new.png", "pink")
    job = controller.indexing.trigger(str(controller.photos))
    controller.embed_without_publishing(job)
    folder = controller.prefix / "parts" / job.job_id
    (folder / "000009-1.parquet.0123456789ab.tmp").write_bytes(b"half")
    assert _kinds(controller) == []


def test_a_lost_database_is_found_and_not_made_anew(controller: Controller) -> None:
    controller.close()
    for path in controller.database_file.parent.glob("imagedex.db*"):
        path.unlink()
    diagnosis = _examine(controller)
    assert [finding.kind for finding in diagnosis.findings] == [FindingKind.DATABASE]
    assert diagnosis.images == 6
    assert not controller.database_file.exists()


def test_a_damaged_database_is_found(controller: Controller) -> None:
    controller.close()
    data = bytearray(controller.database_file.read_bytes())
    data[4096 * 3 : 4096 * 9] = os.urandom(4096 * 6)
    controller.database_file.write_bytes(data)
    assert _kinds(controller) == [FindingKind.DATABASE]
    controller.database_file.write_bytes(b"no database" * 1000)
    assert _kinds(controller) == [FindingKind.DATABASE]


def test_a_catalog_that_lags_is_found(controller: Controller) -> None:
    files = DirectoryIndexFiles(controller.prefix)
    manifest = _current(controller)
    files.commit(
        replace(
            make_commit(manifest, dim=manifest.dim, fence=99),
            model_name=manifest.model_name,
            fingerprint=manifest.fingerprint,
        )
    )
    (finding,) = _examine(controller).findings
    assert finding.kind is FindingKind.CATALOG
    assert "generation" in finding.message


def test_rows_that_the_catalog_lacks_has_twice_or_misplaces_are_counted(
    controller: Controller,
) -> None:
    with sqlite3.connect(controller.database_file) as connection:
        path = str(controller.photos / "green.png")
        connection.execute("DELETE FROM images WHERE image_path = ?", (path,))
        path = str(controller.photos / "blue.png")
        connection.execute("UPDATE images SET segment_row = 77 WHERE image_path = ?", (path,))
    connection.close()
    messages = [finding.message for finding in _examine(controller).findings]
    assert len(messages) == 3
    assert "1 image of the catalog is not where it says" in messages[0]
    assert "blue.png" in messages[0]
    assert "2 images of the index are not in the catalog" in messages[1]
    assert "counts 6 indexed images, though it lists 5" in messages[2]


def test_an_index_that_is_gone_is_missing_and_not_new(
    controller: Controller, tmp_path: Path
) -> None:
    controller.prefix.rename(tmp_path / "elsewhere")
    assert _kinds(controller) == [FindingKind.INDEX_MISSING]


def test_while_a_controller_publishes_a_healthy_index_stays_healthy(
    controller: Controller,
) -> None:
    may_stop = threading.Event()

    def index_again() -> None:
        while not may_stop.is_set():
            controller.index(force=True)

    indexing = threading.Thread(target=index_again)
    indexing.start()
    try:
        found = [_examine(controller).findings for _ in range(8)]
    finally:
        may_stop.set()
        indexing.join()
    assert found == [()] * 8
