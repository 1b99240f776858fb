"""An index written back for the old scripts."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq
import pytest

from imagedex.core.errors import Conflict, CorruptIndex, InvalidRequest, StorageError
from imagedex.core.images import FileStamp, ImageFacts, RowLocation
from imagedex.legacy.exporting import ExportOptions, export_index
from imagedex.legacy.pair import LegacyPair
from imagedex.legacy.state_file import read_state
from imagedex.segments import Commit, DirectoryIndexFiles, Part
from support.commands import Commands
from support.old_indexes import draw_photos, unit_vectors, write_pair

pytestmark = pytest.mark.usefixtures("ready_programs")

DIM = 8
STAMP_NS = 1_700_000_000_123_456_789


def commit(
    files: DirectoryIndexFiles, names: list[str], seed: int, removed: tuple[RowLocation, ...] = ()
) -> None:
    manifest = files.current()
    generation = 0 if manifest is None else manifest.generation
    facts = tuple(
        ImageFacts(f"/photos/{name}", "0" * 64, FileStamp(1000, STAMP_NS), 4, 3, "JPEG")
        for name in names
    )
    job_id = f"idx_{seed}"
    vectors = unit_vectors(len(names), DIM, seed=seed)
    part = files.write_part(job_id, 0, 1, Part(facts, vectors, "clip-fp32-0"))
    files.commit(Commit(generation, 1, "clip", "clip-fp32-0", DIM, job_id, (0,), (part,), removed))


@pytest.fixture
def index(tmp_path: Path) -> DirectoryIndexFiles:
    """Two segments, with one image of the first removed."""
    files = DirectoryIndexFiles(tmp_path / "index")
    commit(files, ["a.jpg", "b.jpg", "ä/c.jpg"], 1)
    commit(files, ["d.jpg", "e.jpg"], 2, removed=(RowLocation(1, 1),))
    return files


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


NAMES = ["a.jpg", "ä/c.jpg", "d.jpg", "e.jpg"]
VECTORS = np.concatenate([unit_vectors(3, DIM, seed=1)[[0, 2]], unit_vectors(2, DIM, seed=2)])


def test_the_files_are_those_that_the_old_scripts_read(
    index: DirectoryIndexFiles, tmp_path: Path
) -> None:
    report = export_index(index, ExportOptions(tmp_path / "out", root=Path("/photos")))
    assert (report.images, report.dim, report.generation) == (4, DIM, 2)
    flat = faiss.read_index(str(tmp_path / "out.faiss"))
    assert type(flat) is faiss.IndexFlatIP
    np.testing.assert_array_equal(flat.reconstruct_n(0, 4), VECTORS)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["path", "embedding"]
    assert table.column("path").to_pylist() == NAMES
    np.testing.assert_array_equal(np.array(table.column("embedding").to_pylist()), VECTORS)
    state_file = tmp_path / "out.state.json"
    assert stat.S_IMODE(state_file.stat().st_mode) == 0o600
    document = json.loads(state_file.read_text("utf-8"))
    assert document["total_images"] == 4
    state = read_state(state_file)
    assert [state.images[name].index_position for name in NAMES] == [0, 1, 2, 3]
    assert all(image.is_of(FileStamp(1000, STAMP_NS)) for image in state.images.values())
    assert names_in(tmp_path) == ["index", "out.faiss", "out.parquet", "out.state.json"]


def test_what_is_written_is_an_old_index_to_the_import(
    index: DirectoryIndexFiles, tmp_path: Path
) -> None:
    options = ExportOptions(tmp_path / "out", path_column="file_path", vector_column="vector")
    export_index(index, options)
    pair = LegacyPair.open(tmp_path / "out")
    assert (pair.path_column, pair.vector_column) == ("file_path", "vector")
    assert pair.paths() == [f"/photos/{name}" for name in NAMES]
    assert pair.check_vectors().compared == 4


def test_files_that_are_there_are_replaced_only_on_request(
    index: DirectoryIndexFiles, tmp_path: Path
) -> None:
    (tmp_path / "out.faiss").write_bytes(b"old")
    with pytest.raises(Conflict, match=r"out\.faiss' is there already.*--replace"):
        export_index(index, ExportOptions(tmp_path / "out"))
    assert names_in(tmp_path) == ["index", "out.faiss"]
    assert (tmp_path / "out.faiss").read_bytes() == b"old"
    export_index(index, ExportOptions(tmp_path / "out", replaces=True))
    assert LegacyPair.open(tmp_path / "out").rows == 4


def test_an_export_that_fails_leaves_what_was_there(
    index: DirectoryIndexFiles, tmp_path: Path
) -> None:
    export_index(index, ExportOptions(tmp_path / "out"))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("out.*")}
    segment = sorted((tmp_path / "index" / "segments").glob("*.parquet"))[1]
    segment.write_bytes(segment.read_bytes()[:-30])
    with pytest.raises(CorruptIndex):
        export_index(index, ExportOptions(tmp_path / "out", replaces=True))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("out.*")} == before
    with pytest.raises(StorageError, match="Could not write"):
        export_index(index, ExportOptions(tmp_path / "none" / "out"))


def test_an_index_without_images_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no image in the index"):
        export_index(DirectoryIndexFiles(tmp_path / "none"), ExportOptions(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_columns_need_different_names(index: DirectoryIndexFiles, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="'x'"):
        export_index(index, ExportOptions(tmp_path / "o", path_column="x", vector_column="x"))


def test_an_index_goes_there_and_back(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 5)
    write_pair(tmp_path / "old", [path.name for path in photos], unit_vectors(5, 768))
    first, second = (Commands.local(tmp_path / name) for name in ("first", "second"))
    first.run("import-legacy", tmp_path / "old", "--root", tmp_path / "photos")
    report = first.json("export-legacy", tmp_path / "new", "--root", tmp_path / "photos")
    assert (report["images"], report["model"]) == (5, "clip-ViT-L-14")
    assert (tmp_path / "new.faiss").read_bytes() == (tmp_path / "old.faiss").read_bytes()
    photos[1].write_bytes(photos[1].read_bytes() + b"more")
    state = tmp_path / "new.state.json"
    again = second.json(
        "import-legacy", tmp_path / "new", "--root", tmp_path / "photos", "--state", state
    )
    assert again["failures_by_reason"] == {"changed": 1}
    done = first.run("export-legacy", tmp_path / "new", "--replace")
    assert done.stdout.startswith("5 images of generation 1, 768 numbers a vector")
    assert "--replace" in first.fail("export-legacy", tmp_path / "new")
