"""Small segments consist of their Parquet file alone, and are searched like the others."""

from __future__ import annotations

from pathlib import Path

from imagedex.segments import (
    DirectoryIndexFiles,
    IvfPolicy,
    Merge,
    SnapshotDirectory,
    examine_files,
    mend_faiss_files,
)
from imagedex.testing.index_files import (
    assert_holds,
    expected_hits,
    found_hits,
    publish_images,
    unit_vectors,
)

_DIM = 16
_VECTORS = unit_vectors(30, _DIM)
_IMAGES = {f"/{i:02d}": vector for i, vector in enumerate(_VECTORS)}


def _files(tmp_path: Path) -> DirectoryIndexFiles:
    return DirectoryIndexFiles(tmp_path / "index", ivf=IvfPolicy(flat_min_rows=20))


def test_a_segment_gets_a_faiss_file_once_it_has_enough_rows(tmp_path: Path) -> None:
    files = _files(tmp_path)
    publish_images(files, dict(list(_IMAGES.items())[:19]))
    manifest = publish_images(files, dict(list(_IMAGES.items())[19:]), chunk=1)
    assert [segment.faiss for segment in manifest.segments] == [None, None]
    assert not list(tmp_path.rglob("*.faiss"))
    assert_holds(files, _IMAGES, dim=_DIM)
    assert examine_files(files.index_prefix).findings == ()
    manifest = files.merge(Merge(1, "merge", frozenset((1, 2))))
    assert [segment.faiss is not None for segment in manifest.segments] == [True]
    assert_holds(files, _IMAGES, dim=_DIM)


def test_inverted_lists_bring_the_vectors_that_they_are_compared_with(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(
        tmp_path / "index", ivf=IvfPolicy(min_rows=20, min_recall=0.01, flat_min_rows=1000)
    )
    manifest = publish_images(files, _IMAGES)
    (segment,) = manifest.segments
    assert segment.faiss is not None


def test_a_small_segment_outlives_its_file_while_it_is_open(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path / "index")
    manifest = publish_images(files, _IMAGES)
    generation = files.open(manifest, None)
    (tmp_path / "index" / manifest.segments[0].parquet.name).unlink()
    query = unit_vectors(1, _DIM, seed=5)[0]
    assert found_hits(generation, query, 30) == expected_hits(_IMAGES, query, 30)


def test_small_segments_are_kept_and_brought_back_by_snapshots(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path / "index")
    manifest = publish_images(files, _IMAGES)
    snapshots = SnapshotDirectory(tmp_path / "snapshots")
    snapshot = snapshots.create("whole", files.index_prefix, manifest, ())
    publish_images(files, {}, gone=list(_IMAGES)[:10])
    snapshots.bring_back(snapshot, files.index_prefix, known_generation=2)
    assert_holds(files, _IMAGES, dim=_DIM)
    assert examine_files(files.index_prefix).findings == ()


def test_there_is_nothing_to_mend_in_a_small_segment(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path / "index")
    manifest = publish_images(files, _IMAGES)
    mended = mend_faiss_files(files.index_prefix, manifest, {manifest.segments[0].number})
    assert (mended.manifest, mended.actions) == (manifest, ())
