"""Filters apply before ranking: what they leave out takes no place of what they allow."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from imagedex.core.ids import image_id_of
from imagedex.core.images import FileStamp, ImageFacts
from imagedex.segments import (
    Commit,
    DirectoryIndexFiles,
    ImageFilter,
    IvfPolicy,
    Manifest,
    OpenGeneration,
    Part,
)
from imagedex.segments._faiss import FaissFile
from imagedex.segments._faiss_ivf import IvfFile, ListedRows, NearLists
from imagedex.segments.approximate import ApproximateSearch
from imagedex.segments.exact import ExactSearch
from imagedex.segments.ivf_tuning import tune
from imagedex.segments.selections import Selection
from imagedex.testing.index_files import (
    FINGERPRINT,
    MODEL_NAME,
    expected_hits,
    publish_images,
    unit_vectors,
)
from support.vectors import clustered_vectors

_DIM = 24
_SECOND = 1_000_000_000


def _facts(number: int, folder: str) -> ImageFacts:
    return ImageFacts(
        image_path=f"/photos/{folder}/{number:04d}.{'jpg' if number % 2 else 'png'}",
        content_hash=f"{number:064x}",
        stamp=FileStamp(size=1000 * number, mtime_ns=number * _SECOND),
        width=100 + number,
        height=1000 - number,
        format="JPEG",
    )


def _publish(
    files: DirectoryIndexFiles, facts: list[ImageFacts], vectors: NDArray[np.float32]
) -> Manifest:
    current = files.current()
    job_id = f"job{current.generation if current else 0}"
    part = files.write_part(job_id, 0, 1, Part(tuple(facts), vectors, FINGERPRINT))
    return files.commit(
        Commit(
            expected_generation=current.generation if current else 0,
            fence=1,
            model_name=MODEL_NAME,
            fingerprint=FINGERPRINT,
            dim=vectors.shape[1],
            job_id=job_id,
            chunks=(0,),
            parts=(part,),
            removed=(),
        )
    )


class _Indexed:
    """300 images in two segments, and what is known of them."""

    def __init__(self, directory: Path) -> None:
        self.files = DirectoryIndexFiles(directory)
        self.facts = [_facts(number, "2024" if number < 150 else "2024b") for number in range(300)]
        self.vectors = unit_vectors(300, _DIM)
        _publish(self.files, self.facts[:200], self.vectors[:200])
        manifest = _publish(self.files, self.facts[200:], self.vectors[200:])
        self.generation: OpenGeneration = self.files.open(manifest, None)

    def expected(
        self, numbers: Sequence[int], query: NDArray[np.float32], k: int
    ) -> list[tuple[str, float]]:
        images = {self.facts[number].image_path: self.vectors[number] for number in numbers}
        return expected_hits(images, query, k)


@pytest.fixture
def indexed(tmp_path: Path) -> _Indexed:
    return _Indexed(tmp_path)


def _found(
    generation: OpenGeneration, query: NDArray[np.float32], k: int, image_filter: ImageFilter
) -> list[tuple[str, float]]:
    (hits,) = generation.search(query[np.newaxis], [k], [image_filter])
    return list(zip(hits.image_paths, hits.scores.tolist(), strict=True))


_QUERY = unit_vectors(1, _DIM, seed=5)[0]
_EXAMPLES: list[tuple[ImageFilter, Sequence[int]]] = [
    (ImageFilter(path_prefix="/photos/2024"), range(150)),
    (ImageFilter(path_prefix="/photos/2024/0007.jpg"), range(7, 8)),
    (ImageFilter(path_prefix="/photos/202"), range(0)),
    (ImageFilter(path_globs=("*.png",)), range(0, 300, 2)),
    (ImageFilter(path_globs=("2024b/*", "0003.*")), [3, *range(150, 300)]),
    (ImageFilter(modified_after_ns=250 * _SECOND), range(250, 300)),
    (ImageFilter(modified_before_ns=250 * _SECOND), range(250)),
    (ImageFilter(min_bytes=10_000, max_bytes=20_000), range(10, 21)),
    (ImageFilter(min_width=150, max_width=160), range(50, 61)),
    (ImageFilter(min_height=990), range(11)),
    (ImageFilter(max_height=710), range(290, 300)),
    (ImageFilter(path_prefix="/photos/2024b", path_globs=("*.jpg",)), range(151, 300, 2)),
    (ImageFilter(min_width=10_000), range(0)),
    (ImageFilter(image_ids=()), range(0)),
]


@pytest.mark.parametrize(("image_filter", "numbers"), _EXAMPLES)
@pytest.mark.parametrize("k", [1, 10, 1000])
def test_the_best_of_those_that_match_are_found(
    indexed: _Indexed, image_filter: ImageFilter, numbers: Sequence[int], k: int
) -> None:
    found = _found(indexed.generation, _QUERY, k, image_filter)
    assert found == indexed.expected(numbers, _QUERY, k)
    (hits,) = indexed.generation.search(_QUERY[np.newaxis], [k], [image_filter])
    assert hits.matching == len(numbers)


def test_a_filter_that_leaves_nothing_out_is_none() -> None:
    assert not ImageFilter()
    assert ImageFilter(min_bytes=0)
    assert ImageFilter(image_ids=())
    assert ImageFilter(path_globs=("*",))


def test_images_are_found_by_their_ids_and_unknown_ids_do_no_harm(indexed: _Indexed) -> None:
    numbers = [3, 77, 250]
    ids = [image_id_of(indexed.facts[number].image_path) for number in numbers]
    almost = ids[0][:16] + "0000"  # As if two ids began alike.
    image_filter = ImageFilter(image_ids=(*ids, almost, image_id_of("/nowhere")))
    found = _found(indexed.generation, _QUERY, 10, image_filter)
    assert found == indexed.expected(numbers, _QUERY, 10)
    for number, image_id in zip(numbers, ids, strict=True):
        vector = indexed.generation.vector_of(image_id)
        assert vector is not None
        np.testing.assert_array_equal(vector, indexed.vectors[number])
        assert indexed.generation.path_of(image_id) == indexed.facts[number].image_path
    for unknown in (almost, "not-an-id", ids[0].upper()):
        assert indexed.generation.vector_of(unknown) is None
        assert indexed.generation.path_of(unknown) is None


def test_queries_with_different_filters_asked_together_find_what_each_finds_alone(
    indexed: _Indexed,
) -> None:
    filters = [None, *(image_filter for image_filter, _ in _EXAMPLES), None]
    queries = unit_vectors(len(filters), _DIM, seed=6)
    together = indexed.generation.search(queries, [7] * len(filters), filters)
    for query, image_filter, hits in zip(queries, filters, together, strict=True):
        (alone,) = indexed.generation.search(query[np.newaxis], [7], [image_filter])
        assert alone.image_paths == hits.image_paths
        assert alone.scores.tolist() == hits.scores.tolist()


def test_what_is_gone_or_changed_is_not_found_though_the_filter_was_asked_before(
    indexed: _Indexed,
) -> None:
    image_filter = ImageFilter(path_prefix="/photos/2024")
    best = [path for path, _ in _found(indexed.generation, _QUERY, 5, image_filter)]
    changed = {best[0]: -_QUERY}
    manifest = publish_images(indexed.files, changed, gone=best[1:3], chunk=9)
    after = indexed.files.open(manifest, indexed.generation)
    left = {f.image_path: v for f, v in zip(indexed.facts[:150], indexed.vectors, strict=False)}
    left = {path: vector for path, vector in left.items() if path not in best[1:3]} | changed
    assert _found(after, _QUERY, 10, image_filter) == expected_hits(left, _QUERY, 10)
    assert after.vector_of(image_id_of(best[1])) is None
    assert after.path_of(image_id_of(best[1])) is None
    # Who still reads the older generation goes on finding what it had.
    assert [path for path, _ in _found(indexed.generation, _QUERY, 5, image_filter)] == best


def test_facts_are_read_though_the_files_were_deleted_meanwhile(indexed: _Indexed) -> None:
    for path in indexed.files.index_prefix.rglob("*.parquet"):
        path.unlink()
    image_filter, numbers = _EXAMPLES[5]
    found = _found(indexed.generation, _QUERY, 10, image_filter)
    assert found == indexed.expected(numbers, _QUERY, 10)


def test_hits_lead_to_their_vectors(indexed: _Indexed) -> None:
    (hits,) = indexed.generation.search(_QUERY[np.newaxis], [300])
    by_path = {f.image_path: v for f, v in zip(indexed.facts, indexed.vectors, strict=True)}
    expected = np.stack([by_path[path] for path in hits.image_paths])
    np.testing.assert_array_equal(indexed.generation.vectors(hits.places), expected)


@pytest.mark.parametrize("rows", [5_000, 21_000])
def test_among_many_rows_exact_search_stays_exact(rows: int) -> None:
    # With 21,000 rows there is a copy in half precision.
    vectors = unit_vectors(rows, 16)
    search = ExactSearch(FaissFile.build(vectors))
    queries = unit_vectors(5, 16, seed=9)
    chance = np.random.default_rng(0)
    for share in (0.001, 0.01, 0.1, 0.5, 1.0):
        marked = chance.random(rows) < share
        selection = Selection(marked)
        allowed = {str(row): vectors[row] for row in np.flatnonzero(marked)}
        for k in (1, 10, 100):
            found = search.best_selected(queries, [k] * 5, selection)
            for query, one in zip(queries, found, strict=True):
                got = dict(zip(map(str, one.rows.tolist()), one.scores.tolist(), strict=True))
                expected = dict(expected_hits(allowed, query, k))
                assert set(expected.values()) == set(got.values())
                assert len(got) >= len(expected)


class _Lists:
    """20,000 clustered vectors with inverted lists."""

    rows = 20_000
    dim = 512

    def __init__(self) -> None:
        self.vectors = clustered_vectors(self.rows, self.dim)
        flat = FaissFile.build(self.vectors)
        self.ivf = IvfFile.build(flat)
        tuning = tune(self.ivf, flat, ks=(10, 30, 100), recall=0.99)
        assert tuning.depths
        self.exact = ExactSearch(flat)
        self.search = ApproximateSearch(self.ivf, tuning.depths, self.exact)

    def recall(self, marked: NDArray[np.bool_], queries: NDArray[np.float32], k: int) -> float:
        """Measure it against exact search of just the rows that are marked."""
        selection = Selection(marked)
        found = self.search.best_selected(queries, [k] * len(queries), selection)
        allowed = np.flatnonzero(marked)
        shares = []
        for query, one in zip(queries, found, strict=True):
            assert marked[one.rows].all()
            true = self.exact.best_among(query, allowed, k)
            shares.append(np.isin(true.rows, one.rows).mean())
        return float(np.mean(shares))


@pytest.fixture(scope="module")
def lists() -> _Lists:
    return _Lists()


def _queries(lists: _Lists) -> NDArray[np.float32]:
    """Return queries like pictures, and as many that resemble them as texts do."""
    pictures = clustered_vectors(60, lists.dim, seed=99)
    noise = unit_vectors(60, lists.dim, seed=98)
    texts = 0.3 * clustered_vectors(60, lists.dim, seed=97) + (1 - 0.3**2) ** 0.5 * noise
    return np.concatenate([pictures, texts.astype(np.float32)])


def _use_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagedex.segments.approximate._FEW_ROWS", 0)
    monkeypatch.setattr("imagedex.segments.approximate._BYTES_OF_A_COPY", 0)


def test_some_thousand_rows_are_compared_exactly_in_a_copy_that_is_made_once(
    lists: _Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = np.random.default_rng(3).random(lists.rows) < 0.2
    selection = Selection(marked)
    reads = []
    real = lists.exact.take

    def take(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        reads.append(len(rows))
        return real(rows)

    monkeypatch.setattr(lists.exact, "take", take)
    queries = _queries(lists)
    for k in (1, 10, 100, int(marked.sum())):
        found = lists.search.best_selected(queries, [k] * len(queries), selection)
        for query, one in zip(queries, found, strict=True):
            true = lists.exact.best_among(query, np.flatnonzero(marked), k)
            assert sorted(one.rows) == sorted(true.rows)
            assert sorted(one.scores) == sorted(true.scores)
    assert reads == [marked.sum()]


def test_a_copy_does_not_hold_the_files_of_its_segment(lists: _Lists) -> None:
    exact = ExactSearch(FaissFile.build(lists.vectors))
    search = ApproximateSearch(lists.ivf, (), exact)
    selection = Selection(np.arange(lists.rows) < 3000)
    search.best_selected(_queries(lists)[:1], [10], selection)
    reference = weakref.ref(exact)
    del search, exact
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("k", [10, 100])
def test_recall_holds_among_rows_that_are_spread_over_all(
    lists: _Lists, share: float, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use_lists(monkeypatch)
    marked = np.random.default_rng(3).random(lists.rows) < share
    assert lists.recall(marked, _queries(lists), k) >= 0.99


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_recall_holds_among_rows_that_lie_together(
    lists: _Lists, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder for each event: its images are alike, and most queries are for others.
    _use_lists(monkeypatch)
    centre = clustered_vectors(1, lists.dim, seed=4)[0]
    near = np.argsort(-(lists.vectors @ centre))[: int(share * lists.rows)]
    marked = np.zeros(lists.rows, dtype=bool)
    marked[near] = True
    assert lists.recall(marked, _queries(lists), 10) >= 0.99


def test_lists_are_read_as_the_allowed_rows_lie() -> None:
    order = np.arange(10)[np.newaxis]  # The nearest first.
    lists = NearLists(np.linspace(1, 0, 10, dtype=np.float32)[np.newaxis], order)
    sizes = np.full(10, 100)
    bits = np.zeros(125, dtype=np.uint8)

    def read(counts: list[int], depth: int = 2) -> list[int]:
        listed = ListedRows(bits, np.array(counts), sizes)
        (numbers,) = listed.lists_to_read(lists, depth).numbers.tolist()
        return list(numbers)

    # Half of all: twice as many lists as for all rows.
    assert read([50] * 10) == [0, 1, 2, 3]
    # All of some lists, among them the nearest: as many as for all rows.
    assert read([100, 100, 0, 100, 0, 0, 100, 0, 0, 0]) == [0, 1]
    # Those without an allowed row are left out.
    assert read([100, 0, 0, 100, 0, 0, 100, 0, 0, 0]) == [0, 3]
    # None near the query: its nearest ones may be anywhere.
    assert read([0, 0, 100, 0, 100, 0, 0, 0, 0, 100]) == [2, 4, 9]
    assert read([5, 5, 100, 0, 100, 0, 0, 0, 0, 100]) == [0, 1, 2, 4, 9]
    assert read([1] * 10) == list(range(10))


def test_a_segment_with_lists_is_filtered_by_what_is_recorded(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path, ivf=IvfPolicy(min_rows=5_000, min_recall=0.9))
    vectors = clustered_vectors(6_000, 32)
    facts = [replace(_facts(n % 300, "x"), image_path=f"/x/{n % 10}/{n}") for n in range(6_000)]
    manifest = _publish(files, facts, vectors)
    assert manifest.segments[0].ivf is not None
    generation = files.open(manifest, None)
    query = clustered_vectors(1, 32, seed=8)
    (hits,) = generation.search(query, [10], [ImageFilter(path_prefix="/x/3")])
    assert {path.split("/")[2] for path in hits.image_paths} == {"3"}
    assert hits.matching == 600
    (all_hits,) = generation.search(query, [6_000], [None])
    assert [path for path in all_hits.image_paths if path.startswith("/x/3/")][:10] == list(
        hits.image_paths
    )
