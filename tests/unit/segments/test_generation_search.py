"""Searching an open generation: exact scores, order, tombstones, many segments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagedex.segments import DirectoryIndexFiles
from imagedex.testing.index_files import (
    expected_hits,
    found_hits,
    make_commit,
    make_part,
    publish_images,
    unit_vectors,
)
from support.structures import faiss_of, files_with_faiss

_DIM = 24


def _publish_in_segments(
    files: DirectoryIndexFiles, vectors: np.ndarray, sizes: list[int]
) -> dict[str, np.ndarray]:
    images = {f"/p/{i:05d}.jpg": vector for i, vector in enumerate(vectors)}
    names = iter(list(images))
    for chunk, size in enumerate(sizes):
        mine = {name: images[name] for _, name in zip(range(size), names, strict=False)}
        publish_images(files, mine, chunk=chunk)
    return images


def test_scores_equal_those_of_numpy_over_many_segments(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    sizes = [300, 1, 1, 2, 64, 5, 1, 130, 7, 89]
    images = _publish_in_segments(files, unit_vectors(600, _DIM), sizes)
    manifest = files.current()
    assert manifest is not None
    assert len(manifest.segments) == 10
    generation = files.open(manifest, None)
    for query in unit_vectors(10, _DIM, seed=3):
        for k in (1, 10, 100, 600, 1000):
            assert found_hits(generation, query, k) == expected_hits(images, query, k)


def test_rows_with_a_tombstone_never_appear(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    images = _publish_in_segments(files, unit_vectors(400, _DIM), [200, 200])
    query = unit_vectors(1, _DIM, seed=9)[0]
    best = [path for path, _ in expected_hits(images, query, 150)]
    manifest = publish_images(files, {}, gone=best)
    for path in best:
        del images[path]
    assert manifest.images == 250
    assert found_hits(files.open(manifest, None), query, 20) == expected_hits(images, query, 20)


def test_a_segment_whose_rows_are_all_gone_is_left_out(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    images = _publish_in_segments(files, unit_vectors(20, _DIM), [10, 10])
    manifest = publish_images(files, {}, gone=list(images)[:10])
    (hits,) = files.open(manifest, None).search(unit_vectors(1, _DIM), [1000])
    assert sorted(hits.image_paths) == list(images)[10:]
    manifest = publish_images(files, {}, gone=list(images)[10:])
    (hits,) = files.open(manifest, None).search(unit_vectors(1, _DIM), [1000])
    assert hits.image_paths == ()
    assert hits.scores.shape == (0,)
    assert manifest.images == 0


@pytest.mark.parametrize("k", [1, 5, 39, 40, 41, 500])
def test_of_equal_images_those_with_the_smallest_paths_are_found(tmp_path: Path, k: int) -> None:
    # 700 rows of one vector in three segments: far more than the spare candidates of one
    # search, in places that Faiss adds up differently.
    files = DirectoryIndexFiles(tmp_path)
    same, other = unit_vectors(2, 387, seed=5)
    names = [f"/p/{i:04d}.jpg" for i in range(700)]
    order = np.random.default_rng(1).permutation(700)
    images = {}
    for segment, places in enumerate((order[:331], order[331:600], order[600:])):
        mine = {names[i]: same for i in places} | {f"/q/{segment}.jpg": other}
        publish_images(files, mine, chunk=segment)
        images.update(mine)
    manifest = publish_images(files, {}, gone=names[:3])
    for name in names[:3]:
        del images[name]
    generation = files.open(manifest, None)
    for query in (same, unit_vectors(1, 387, seed=8)[0]):
        assert found_hits(generation, query, k) == expected_hits(images, query, k)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_mixture_of_segments_duplicates_and_tombstones_is_searched_exactly(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    dim = data.draw(st.sampled_from([1, 3, 16, 33]))
    pool = unit_vectors(data.draw(st.integers(1, 40)), dim, seed=data.draw(st.integers(0, 99)))
    choices = data.draw(st.lists(st.integers(0, len(pool) - 1), min_size=1, max_size=120))
    sizes = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=5))
    files = DirectoryIndexFiles(tmp_path_factory.mktemp("index"))
    sizes.append(len(choices))
    images = _publish_in_segments(files, pool[choices], _cut(sizes, len(choices)))
    gone = data.draw(st.lists(st.sampled_from(sorted(images)), unique=True))
    manifest = publish_images(files, {}, gone=gone)
    for path in gone:
        del images[path]
    generation = files.open(manifest, None)
    query = pool[data.draw(st.integers(0, len(pool) - 1))]
    k = data.draw(st.integers(1, 130))
    assert found_hits(generation, query, k) == expected_hits(images, query, k)


def _cut(sizes: list[int], total: int) -> list[int]:
    """Shorten a list of sizes so that they sum up to the total."""
    cut: list[int] = []
    for size in sizes:
        cut.append(min(size, total - sum(cut)))
        if sum(cut) == total:
            break
    return cut


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros((1, 3), dtype=np.float32),
        np.zeros((1, _DIM), dtype=np.float64),
        np.full((1, _DIM), np.nan, dtype=np.float32),
        np.full((1, _DIM), np.inf, dtype=np.float32),
        np.zeros(_DIM, dtype=np.float32),
        np.zeros((2, _DIM), dtype=np.float32),
    ],
)
def test_a_vector_that_cannot_be_compared_is_refused(tmp_path: Path, vector: np.ndarray) -> None:
    files = DirectoryIndexFiles(tmp_path)
    _publish_in_segments(files, unit_vectors(3, _DIM), [3])
    manifest = files.current()
    assert manifest is not None
    generation = files.open(manifest, None)
    with pytest.raises(ValueError, match="Query vectors"):
        generation.search(vector, [1])
    with pytest.raises(ValueError, match="k is 0"):
        generation.search(unit_vectors(1, _DIM), [0])


def test_an_index_that_never_had_an_image_finds_nothing(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    name = files.write_part("job", 0, 1, make_part({}, dim=_DIM))
    manifest = files.commit(make_commit(None, dim=_DIM, parts=[name]))
    assert manifest.segments == ()
    (hits,) = files.open(manifest, None).search(unit_vectors(1, _DIM), [10])
    assert hits.image_paths == ()


def test_open_shares_the_segments_of_the_previous_generation(tmp_path: Path) -> None:
    files = files_with_faiss(tmp_path)
    images = _publish_in_segments(files, unit_vectors(20, _DIM), [20])
    first = files.current()
    assert first is not None
    old = files.open(first, None)
    extra = {"/p/x.jpg": unit_vectors(1, _DIM, seed=2)[0]}
    second = publish_images(files, extra, chunk=1)
    # Without its files the first segment can only come from the previous generation.
    (tmp_path / second.segments[0].parquet.name).unlink()
    (tmp_path / faiss_of(second.segments[0]).name).unlink()
    new = files.open(second, old)
    assert new.segment(second.segments[0]) is old.segment(first.segments[0])
    query = unit_vectors(1, _DIM, seed=4)[0]
    assert found_hits(new, query, 50) == expected_hits(images | extra, query, 50)
    assert found_hits(old, query, 50) == expected_hits(images, query, 50)


def test_queries_asked_together_find_what_each_finds_alone(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    images = _publish_in_segments(files, unit_vectors(300, _DIM), [200, 100])
    manifest = publish_images(files, {}, gone=list(images)[50:90:3])
    generation = files.open(manifest, None)
    queries = unit_vectors(9, _DIM, seed=5)
    ks = [1, 3, 400, 7, 1000, 2, 50, 50, 286]
    together = generation.search(queries, ks)
    for query, k, hits in zip(queries, ks, together, strict=True):
        (alone,) = generation.search(query[np.newaxis], [k])
        assert hits.image_paths == alone.image_paths
        assert hits.scores.tolist() == alone.scores.tolist()
    assert generation.search(queries[:0], []) == []
