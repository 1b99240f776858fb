"""Inverted lists: made for large segments, measured, and searched with exact scores."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from imagedex.core.errors import CorruptIndex
from imagedex.core.images import RowLocation
from imagedex.segments import (
    DirectoryIndexFiles,
    FindingKind,
    IvfPolicy,
    Manifest,
    Merge,
    SnapshotDirectory,
    examine_files,
    mend_faiss_files,
)
from imagedex.segments._faiss import FaissFile
from imagedex.segments._faiss_ivf import IvfFile, NearLists, RowSet
from imagedex.segments.approximate import ApproximateSearch, depth_for
from imagedex.segments.exact import ExactSearch
from imagedex.segments.ivf_tuning import tune
from imagedex.segments.records import ANY_MARGIN, ANY_NEARNESS, SearchDepth
from imagedex.testing.index_files import make_commit, make_part
from support.vectors import clustered_blocks

_DIM = 32
_ROWS = 3000
_NONE = np.empty(0, dtype=np.int64)


def clustered_vectors(rows: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Return unit vectors around one centre for every fifty of them."""
    centres = np.random.default_rng(7).standard_normal((max(1, _ROWS // 50), _DIM))
    chance = np.random.default_rng(seed)
    vectors = centres[chance.integers(0, len(centres), rows)]
    vectors = vectors + 0.5 * chance.standard_normal((rows, _DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


@pytest.fixture(scope="module")
def flat() -> FaissFile:
    return FaissFile.build(clustered_vectors(_ROWS))


@pytest.fixture(scope="module")
def lists(flat: FaissFile) -> IvfFile:
    return IvfFile.build(flat)


def _search(lists: IvfFile, flat: FaissFile) -> ApproximateSearch:
    tuning = tune(lists, flat, ks=(10, 100), recall=0.97)
    return ApproximateSearch(lists, tuning.depths, ExactSearch(flat))


def test_the_depth_that_is_chosen_keeps_its_recall_for_queries_that_it_has_not_seen(
    lists: IvfFile, flat: FaissFile
) -> None:
    search = _search(lists, flat)
    queries = clustered_vectors(100, seed=99)
    for k in (1, 10, 100):
        found = search.best(queries, [k] * 100, _NONE)
        true = ExactSearch(flat).best(queries, [k] * 100, _NONE)
        hits = [np.isin(b.rows, a.rows).mean() for a, b in zip(found, true, strict=True)]
        assert np.mean(hits) >= 0.96
        for one, other in zip(found, true, strict=True):
            exact = dict(zip(other.rows.tolist(), other.scores.tolist(), strict=True))
            for row, score in zip(one.rows.tolist(), one.scores.tolist(), strict=True):
                assert exact.get(row, score) == score


def test_a_deeper_search_is_chosen_for_a_higher_recall(lists: IvfFile, flat: FaissFile) -> None:
    costs = []
    for recall in (0.5, 0.999):
        depth = tune(lists, flat, ks=(10,), recall=recall).depths[-1]
        assert depth.recall >= recall
        costs.append(depth.probes * depth.candidates)
    assert costs[0] < costs[1]


def test_queries_like_rows_read_fewer_lists_than_those_like_texts() -> None:
    def photos(count: int, seed: int) -> NDArray[np.float32]:
        return np.concatenate(list(clustered_blocks(count, 256, seed=seed, of=20_000)))

    vectors = photos(20_000, 0)
    flat = FaissFile.build(vectors)
    lists = IvfFile.build(flat)
    depths = tune(lists, flat, ks=(10,), recall=0.99).depths
    near, far = depths
    assert near.nearness > far.nearness == ANY_NEARNESS
    assert near.probes < far.probes
    search = ApproximateSearch(lists, depths, ExactSearch(flat))
    pictures = photos(100, 99)
    noise = np.random.default_rng(1).standard_normal((100, 256))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    texts = (0.3 * photos(100, 98) + 0.954 * noise).astype(np.float32)
    for queries, depth in ((pictures, near), (texts, far)):
        nearest = lists.nearest(queries, 1).scores[:, 0]
        chosen = [depth_for(depths, 10, nearness=score) for score in nearest.tolist()]
        assert chosen.count(depth) >= 90
        found = search.best(queries, [10] * 100, _NONE)
        true = ExactSearch(flat).best(queries, [10] * 100, _NONE)
        hits = [np.isin(b.rows, a.rows).mean() for a, b in zip(found, true, strict=True)]
        assert np.mean(hits) >= 0.98


def test_lists_that_lie_far_behind_the_nearest_are_not_read() -> None:
    scores = np.array([[0.9, 0.8, 0.3, 0.2], [0.3, 0.25, 0.2, 0.1]], dtype=np.float32)
    numbers = np.array([[3, 1, 0, 2], [2, 0, 1, 3]])
    near = NearLists(scores, numbers)
    assert near.within(probes=3, margin=0.11).numbers.tolist() == [[3, 1, -1], [2, 0, 1]]
    assert near.within(probes=3, margin=0.0).numbers.tolist() == [[3], [2]]
    assert near.within(probes=2, margin=ANY_MARGIN).numbers.tolist() == [[3, 1], [2, 0]]


def test_vectors_without_neighbours_get_no_depth() -> None:
    vectors = np.random.default_rng(0).standard_normal((5000, 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    flat = FaissFile.build(vectors)
    tuning = tune(IvfFile.build(flat), flat, ks=(10, 100), recall=0.99)
    assert tuning.depths == ()
    assert 0 < tuning.recall < 0.99


def test_more_results_than_the_lists_are_tuned_for_are_exact(
    lists: IvfFile, flat: FaissFile
) -> None:
    queries = clustered_vectors(2, seed=5)
    found = _search(lists, flat).best(queries, [102, 3000], _NONE)
    true = ExactSearch(flat).best(queries, [102, 3000], _NONE)
    for one, other in zip(found, true, strict=True):
        assert sorted(one.rows) == sorted(other.rows)


def test_rows_that_are_gone_neither_appear_nor_take_the_place_of_others(
    lists: IvfFile, flat: FaissFile
) -> None:
    search = _search(lists, flat)
    query = clustered_vectors(1, seed=5)
    nearest = ExactSearch(flat).best(query, [30], _NONE)[0]
    gone = np.sort(nearest.rows[np.argsort(-nearest.scores)][:20])
    (found,) = search.best(query, [10], gone)
    (true,) = ExactSearch(flat).best(query, [10], gone)
    assert not np.isin(found.rows, gone).any()
    assert len(set(found.rows) & set(true.rows)) >= 9
    (all_again,) = search.best(query, [10], _NONE)
    assert np.isin(all_again.rows, nearest.rows).all()


def test_lists_that_hold_too_few_are_made_up_for_by_exact_search(
    lists: IvfFile, flat: FaissFile
) -> None:
    search = ApproximateSearch(
        lists, (SearchDepth(500, ANY_NEARNESS, 1, ANY_MARGIN, 500, 1.0),), ExactSearch(flat)
    )
    query = clustered_vectors(1, seed=5)
    (found,) = search.best(query, [500], _NONE)
    (true,) = ExactSearch(flat).best(query, [500], _NONE)
    assert sorted(found.rows) == sorted(true.rows)


def test_where_the_nearest_list_holds_too_few_more_are_read(
    lists: IvfFile, flat: FaissFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The lists near at a glance hold a handful of rows; those of the depth for all hold enough.
    depths = (
        SearchDepth(500, -1.0, 1, 0.0, 500, 1.0),
        SearchDepth(500, ANY_NEARNESS, lists.lists, ANY_MARGIN, 2000, 1.0),
    )
    exact = ExactSearch(flat)
    search = ApproximateSearch(lists, depths, exact)
    query = clustered_vectors(1, seed=5)
    (true,) = exact.best(query, [500], _NONE)
    monkeypatch.setattr(exact, "best", None)  # Nothing falls back on it.
    (found,) = search.best(query, [500], _NONE)
    assert np.isin(true.rows, found.rows).mean() >= 0.99


def test_a_search_among_rows_finds_only_those(lists: IvfFile) -> None:
    odd = RowSet.all_but(np.arange(0, _ROWS, 2), rows=_ROWS)
    queries = clustered_vectors(3, seed=5)
    rows = lists.candidates(queries, 50, lists=lists.nearest(queries, lists.lists), among=odd)
    assert (rows % 2 == 1).all()


def test_a_file_of_another_kind_is_not_searched(tmp_path: Path) -> None:
    index = faiss.IndexFlatIP(_DIM)
    index.add(clustered_vectors(6))
    faiss.write_index(index, str(tmp_path / "x.ivf"))
    with pytest.raises(CorruptIndex, match="IndexFlatIP of 6 x 32"):
        IvfFile.open(tmp_path / "x.ivf", rows=6, dim=_DIM)


def _publish(files: DirectoryIndexFiles, vectors: NDArray[np.float32]) -> Manifest:
    current = files.current()
    number = 1 + (current.segments[-1].number if current else 0)
    images = {f"/{number}/{row:05d}": vector for row, vector in enumerate(vectors)}
    part = files.write_part("job", number, 1, make_part(images, dim=_DIM))
    return files.commit(make_commit(current, dim=_DIM, parts=[part]))


def test_a_segment_gets_lists_when_it_is_large_enough(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path, ivf=IvfPolicy(min_rows=_ROWS, min_recall=0.9))
    _publish(files, clustered_vectors(_ROWS - 1))
    manifest = _publish(files, clustered_vectors(1, seed=3))
    assert [segment.ivf for segment in manifest.segments] == [None, None]
    manifest = files.merge(Merge(1, "merge", frozenset((1, 2))))
    (segment,) = manifest.segments
    assert segment.ivf is not None
    assert {depth.k for depth in segment.ivf.depths} == {10, 30, 100}
    assert files.current() == manifest
    query = clustered_vectors(_ROWS - 1)[17]
    (hits,) = files.open(manifest, None).search(query[np.newaxis], [1])
    assert hits.image_paths == ("/1/00017",)
    assert hits.scores.tolist() == [np.float32((query.astype(np.float64) ** 2).sum())]
    manifest = files.commit(
        make_commit(manifest, dim=_DIM, removed=[RowLocation(segment.number, 17)])
    )
    (hits,) = files.open(manifest, None).search(query[np.newaxis], [1])
    assert hits.image_paths != ("/1/00017",)
    assert files.sweep(keep_jobs=[]) > 0
    assert (tmp_path / segment.ivf.file.name).is_file()


def test_lists_that_cannot_reach_the_recall_are_not_published(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path, ivf=IvfPolicy(min_rows=2000, min_recall=1.0))
    chance = np.random.default_rng(0).standard_normal((2000, _DIM)).astype(np.float32)
    with capture_logs() as logs:
        manifest = _publish(files, chance / np.linalg.norm(chance, axis=1, keepdims=True))
    assert manifest.segments[0].ivf is None
    assert [entry["event"] for entry in logs] == ["inverted_lists_dropped"]
    assert not list(tmp_path.rglob("*.ivf"))


@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_damaged_lists_are_left_out_and_search_is_exact(tmp_path: Path, damage: str) -> None:
    files = DirectoryIndexFiles(tmp_path, ivf=IvfPolicy(min_rows=_ROWS, min_recall=0.9))
    manifest = _publish(files, clustered_vectors(_ROWS))
    assert manifest.segments[0].ivf is not None
    path = tmp_path / manifest.segments[0].ivf.file.name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        middle = len(content) // 2
        end = content[middle:-1] if damage == "cut" else bytes([content[middle] ^ 1])
        path.write_bytes(
            content[:middle] + end + (b"" if damage == "cut" else content[middle + 1 :])
        )
    with capture_logs() as logs:
        generation = files.open(manifest, None)
    assert [entry["event"] for entry in logs] == ["inverted_lists_left_out"]
    queries = clustered_vectors(20, seed=5)
    flat = FaissFile.build(clustered_vectors(_ROWS))
    true = ExactSearch(flat).best(queries, [10] * 20, _NONE)
    for hits, best in zip(generation.search(queries, [10] * 20), true, strict=True):
        assert sorted(hits.image_paths) == sorted(f"/1/{row:05d}" for row in best.rows)


def test_damaged_lists_are_found_and_left_out_by_a_repair(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path, ivf=IvfPolicy(min_rows=_ROWS, min_recall=0.9))
    manifest = _publish(files, clustered_vectors(_ROWS))
    assert manifest.segments[0].ivf is not None
    assert [finding.kind for finding in examine_files(tmp_path).findings] == []
    path = tmp_path / manifest.segments[0].ivf.file.name
    path.unlink()
    path.write_bytes(b"damaged")
    assert [finding.kind for finding in examine_files(tmp_path).findings] == [FindingKind.FAISS]
    mended = mend_faiss_files(tmp_path, manifest, {manifest.segments[0].number})
    assert mended.manifest == files.current() != manifest
    assert mended.manifest is not None
    assert mended.manifest.segments[0].ivf is None
    assert any("imagedex rebuild" in action for action in mended.actions)
    again = files.merge(Merge(99, "again", frozenset((1,))))
    assert again.segments[0].ivf is not None


def test_a_snapshot_keeps_the_lists(tmp_path: Path) -> None:
    index_prefix = tmp_path / "index"
    files = DirectoryIndexFiles(index_prefix, ivf=IvfPolicy(min_rows=_ROWS, min_recall=0.9))
    manifest = _publish(files, clustered_vectors(_ROWS))
    snapshots = SnapshotDirectory(tmp_path / "snapshots")
    snapshot = snapshots.create("whole", index_prefix, manifest, ())
    assert manifest.segments[0].ivf is not None
    (index_prefix / manifest.segments[0].ivf.file.name).unlink()
    restored = snapshots.bring_back(snapshot, index_prefix, known_generation=1)
    assert restored.segments[0].ivf is not None
    assert examine_files(index_prefix).findings == ()
