"""Filters, images, several terms, near-duplicates and pages, over real files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from imagedex.core.errors import (
    CursorExpired,
    InvalidRequest,
    ModelNotInstalled,
    NotFound,
)
from imagedex.core.ids import image_id_of
from imagedex.embedding import EncodedTexts
from imagedex.search import (
    ImageTerm,
    PictureTerm,
    Query,
    QueryAnswer,
    QueryService,
    Term,
    TextTerm,
)
from imagedex.search import live as live_module
from imagedex.search.finding import Finder, Found, Wanted
from imagedex.segments import DirectoryIndexFiles, Hits, ImageFilter, IvfPolicy, Manifest
from imagedex.segments.generation import DirectoryGeneration
from imagedex.testing.index_files import (
    FINGERPRINT,
    MODEL_NAME,
    expected_hits,
    publish_images,
    unit_vectors,
)
from support.vectors import clustered_vectors

_DIM = 8
_IMAGES = {f"/p/{i:03d}.jpg": vector for i, vector in enumerate(unit_vectors(200, _DIM))}
_FIRST = "/p/000.jpg"


class _SeededEncoder:
    """A random vector for each text, which depends on the text alone."""

    def __init__(self, dim: int = _DIM) -> None:
        self._dim = dim

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        vectors = [unit_vectors(1, self._dim, seed=sum(t.encode())) for t in texts]
        return EncodedTexts(np.concatenate(vectors), (False,) * len(texts))


class _AbsentEncoder:
    def encode_texts(self, texts: Sequence[str]) -> NoReturn:
        raise ModelNotInstalled("Get it by: imagedex models pull it.")


def _make_service(
    encoder: _SeededEncoder | _AbsentEncoder | None = None,
    *,
    dim: int = _DIM,
    ivf: IvfPolicy | None = None,
) -> QueryService:
    policy = ivf or IvfPolicy()
    return QueryService(
        files_of=lambda prefix: DirectoryIndexFiles(prefix, ivf=policy),
        encoder=encoder or _SeededEncoder(dim),
        model_name=MODEL_NAME,
        fingerprint=FINGERPRINT,
        dim=dim,
        cache_entries=16,
    )


@pytest.fixture
def service() -> QueryService:
    return _make_service()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    publish_images(DirectoryIndexFiles(tmp_path / "index"), _IMAGES)
    return tmp_path / "index"


def _current(prefix: Path) -> Manifest:
    manifest = DirectoryIndexFiles(prefix).current()
    assert manifest is not None
    return manifest


def _vector_of(text: str) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = _SeededEncoder().encode_texts([text]).vectors[0]
    return vector


def _pairs(answer: QueryAnswer) -> list[tuple[str, float]]:
    return [(result.image_path, result.score) for result in answer.results]


def _all_pages(service: QueryService, prefix: Path, query: Query) -> list[QueryAnswer]:
    answers = [service.answer(prefix, query)]
    while answers[-1].next_cursor is not None:
        answers.append(service.answer(prefix, query, answers[-1].next_cursor))
    return answers


def test_a_filter_fills_the_answer_with_images_that_match(
    service: QueryService, prefix: Path
) -> None:
    query = Query((TextTerm("dogs"),), 5, ImageFilter(path_globs=("00*.jpg",)))
    some = {path: vector for path, vector in _IMAGES.items() if path.startswith("/p/00")}
    assert _pairs(service.answer(prefix, query)) == expected_hits(some, _vector_of("dogs"), 5)
    # Neither answer is given for the other question.
    plain = service.answer(prefix, replace(query, image_filter=None))
    assert _pairs(plain) == expected_hits(_IMAGES, _vector_of("dogs"), 5)
    again = service.answer(prefix, query)
    assert again.is_cached
    assert again.results != plain.results


def test_a_glob_that_cannot_be_understood_fails_alone(service: QueryService, prefix: Path) -> None:
    query = Query((TextTerm("dogs"),), 5, ImageFilter(path_globs=("[z-a]",)))
    with pytest.raises(InvalidRequest, match="glob"):
        service.answer(prefix, query)


def test_results_below_the_least_score_are_left_out(service: QueryService, prefix: Path) -> None:
    ranked = expected_hits(_IMAGES, _vector_of("dogs"), 200)
    least = ranked[6][1]
    for top_k, count in ((3, 3), (7, 7), (50, 7)):
        answer = service.answer(prefix, Query((TextTerm("dogs"),), top_k, min_score=least))
        assert _pairs(answer) == ranked[:count]
        assert (answer.next_cursor is None) == (top_k > 7)
    pages = _all_pages(service, prefix, Query((TextTerm("dogs"),), 3, min_score=least))
    assert [pair for page in pages for pair in _pairs(page)] == ranked[:7]


def test_more_like_an_image_leaves_the_image_itself_out(
    service: QueryService, prefix: Path
) -> None:
    others = {path: vector for path, vector in _IMAGES.items() if path != _FIRST}
    expected = expected_hits(others, _IMAGES[_FIRST], 5)
    answer = service.answer(prefix, Query((ImageTerm(image_id_of(_FIRST)),), 5))
    assert _pairs(answer) == expected
    assert answer.query == ""
    everything = service.answer(prefix, Query((ImageTerm(image_id_of(_FIRST)),), 200))
    assert len(everything.results) == 199
    assert everything.next_cursor is None


def test_an_indexed_image_is_asked_with_though_the_model_is_not_installed(prefix: Path) -> None:
    service = _make_service(_AbsentEncoder())
    assert len(service.answer(prefix, Query((ImageTerm(image_id_of(_FIRST)),), 5)).results) == 5
    with pytest.raises(ModelNotInstalled, match="models pull"):
        service.query(prefix, "dogs", 5)


def test_an_image_that_is_not_in_the_index_is_not_found(
    service: QueryService, prefix: Path
) -> None:
    with pytest.raises(NotFound, match=image_id_of("/nowhere")):
        service.answer(prefix, Query((ImageTerm(image_id_of("/nowhere")),)))


def test_a_picture_is_asked_with(service: QueryService, prefix: Path) -> None:
    vector = _vector_of("a picture")
    answer = service.answer(prefix, Query((PictureTerm("hash", vector.tobytes()),), 5))
    assert _pairs(answer) == expected_hits(_IMAGES, vector, 5)


def test_several_terms_are_one_direction(service: QueryService, prefix: Path) -> None:
    terms: tuple[Term, ...] = (
        TextTerm("dogs", 0.8),
        TextTerm("cats", -0.5),
        ImageTerm(image_id_of(_FIRST), 0.3),
    )
    total = 0.8 * _vector_of("dogs").astype(np.float64) - 0.5 * _vector_of("cats")
    total += 0.3 * _IMAGES[_FIRST]
    direction = (total / np.linalg.norm(total)).astype(np.float32)
    others = {path: vector for path, vector in _IMAGES.items() if path != _FIRST}
    found = [path for path, _ in _pairs(service.answer(prefix, Query(terms, 9)))]
    assert found == [path for path, _ in expected_hits(others, direction, 9)]


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ((), "0 terms"),
        ((TextTerm("a"),) * 17, "17 terms"),
        ((TextTerm("a", 0.0),), "weight 0.0"),
        ((TextTerm("a", 1.5),), "weight 1.5"),
        ((TextTerm("a", float("nan")),), "weight nan"),
        ((TextTerm("a"), TextTerm("a", -1.0)), "cancel"),
        ((TextTerm("a"), TextTerm(" ")), "empty"),
    ],
)
def test_terms_that_make_no_sense_are_refused(
    service: QueryService, prefix: Path, terms: tuple[Term, ...], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        service.answer(prefix, Query(terms))


def test_terms_that_cancel_out_do_not_keep_others_from_being_searched_together(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = DirectoryIndexFiles(prefix).open(_current(prefix), None)
    searched: list[int] = []
    real = DirectoryGeneration.search

    def search(self: DirectoryGeneration, vectors: Any, *arguments: Any) -> list[Hits]:
        searched.append(len(vectors))
        return real(self, vectors, *arguments)

    monkeypatch.setattr(DirectoryGeneration, "search", search)
    finder = Finder(_SeededEncoder(), model_name=MODEL_NAME, dim=_DIM, cache_entries=4)
    nothing = Query((TextTerm("dogs"), TextTerm("dogs", -1.0)), 5)
    queries = [Query.of_text("dogs", 5), nothing, Query.of_text("cats", 5)]
    answers = finder.find(generation, [finder.prepare(generation, query) for query in queries])
    assert isinstance(answers[1], InvalidRequest)
    for place, text in ((0, "dogs"), (2, "cats")):
        found = answers[place]
        assert isinstance(found, Found)
        expected = expected_hits(_IMAGES, _vector_of(text), 5)
        assert list(found.hits.image_paths) == [path for path, _ in expected]
    assert searched == [2]


@pytest.mark.parametrize(("top_k", "is_plain"), [(100, True), (101, False)])
def test_a_query_for_more_than_lists_are_tuned_for_is_costly(top_k: int, is_plain: bool) -> None:
    assert Query.of_text("dogs", top_k).is_plain == is_plain
    assert Wanted((TextTerm("dogs"),), top_k).is_plain == is_plain


@pytest.mark.parametrize("top_k", [1, 7, 60, 100, 199, 200, 500])
def test_pages_give_each_image_once_in_order(
    service: QueryService, prefix: Path, top_k: int
) -> None:
    pages = _all_pages(service, prefix, Query((TextTerm("dogs"),), top_k))
    assert len(pages) == -(-200 // top_k)
    assert [pair for page in pages for pair in _pairs(page)] == expected_hits(
        _IMAGES, _vector_of("dogs"), 200
    )
    assert [r.rank for page in pages for r in page.results] == list(range(1, 201))


def test_pages_go_on_as_they_began_whatever_is_published_between(
    service: QueryService, prefix: Path
) -> None:
    files = DirectoryIndexFiles(prefix)
    query = Query((TextTerm("dogs"),), 30)
    expected = expected_hits(_IMAGES, _vector_of("dogs"), 200)
    answer = service.answer(prefix, query)
    found = _pairs(answer)
    for step in range(6):
        gone = [path for path, _ in expected[step * 30 : step * 30 + 5]]
        publish_images(files, {f"/new/{step}.jpg": _vector_of("dogs")}, gone=gone, chunk=step + 10)
        service.refresh(prefix)
        files.sweep(keep_jobs=[])
        assert answer.next_cursor is not None
        answer = service.answer(prefix, query, answer.next_cursor)
        assert answer.generation == 1
        found += _pairs(answer)
    assert answer.next_cursor is None
    assert found == expected
    assert service.answer(prefix, query).generation == 7


def test_a_state_that_is_no_longer_kept_says_so(
    service: QueryService, prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = DirectoryIndexFiles(prefix)
    query = Query((TextTerm("dogs"),), 30)
    cursor = service.answer(prefix, query).next_cursor
    for step in range(live_module._MAX_PAGED_GENERATIONS + 1):
        publish_images(files, {f"/new/{step}.jpg": _vector_of("cats")}, chunk=step + 10)
        service.refresh(prefix)
        service.answer(prefix, query)
    with pytest.raises(CursorExpired, match="first page"):
        service.answer(prefix, query, cursor)
    fresh = service.answer(prefix, query)
    assert service.answer(prefix, query, fresh.next_cursor).results[0].rank == 31


def test_another_query_does_not_go_on_with_a_cursor(service: QueryService, prefix: Path) -> None:
    cursor = service.answer(prefix, Query((TextTerm("dogs"),), 30)).next_cursor
    with pytest.raises(InvalidRequest, match="cursor"):
        service.answer(prefix, Query((TextTerm("cats"),), 30), cursor)


def test_a_cursor_holds_after_a_restart_while_the_generation_is_current(prefix: Path) -> None:
    query = Query((TextTerm("dogs"),), 30)
    cursor = _make_service().answer(prefix, query).next_cursor
    expected = expected_hits(_IMAGES, _vector_of("dogs"), 60)[30:]
    assert _pairs(_make_service().answer(prefix, query, cursor)) == expected


def test_pages_of_inverted_lists_neither_repeat_nor_leave_out(tmp_path: Path) -> None:
    dim = 32
    vectors = clustered_vectors(3000, dim)
    images = {f"/p/{i:04d}.jpg": vector for i, vector in enumerate(vectors)}
    # With a low recall the first pages miss some that deeper searches find.
    ivf = IvfPolicy(min_rows=2000, min_recall=0.5)
    manifest = publish_images(DirectoryIndexFiles(tmp_path, ivf=ivf), images)
    assert manifest.segments[0].ivf is not None
    service = _make_service(dim=dim, ivf=ivf)
    for text in ("dogs", "cats", "birds"):
        pages = _all_pages(service, tmp_path, Query((TextTerm(text),), 10))
        found = [result.image_path for page in pages for result in page.results]
        assert len(found) == 3000
        assert set(found) == set(images)


def test_there_is_no_page_beyond_ten_thousand_results(tmp_path: Path) -> None:
    vectors = unit_vectors(10_050, 4)
    images = {f"/p/{i:05d}.jpg": vector for i, vector in enumerate(vectors)}
    publish_images(DirectoryIndexFiles(tmp_path), images)
    service = _make_service(dim=4)
    pages = _all_pages(service, tmp_path, Query((TextTerm("dogs"),), 900))
    assert [len(page.results) for page in pages] == [900] * 11 + [100]
    found = [result.image_path for page in pages for result in page.results]
    assert len(set(found)) == 10_000


def _with_copies() -> dict[str, NDArray[np.float32]]:
    """Return 50 images, every fifth with four near-copies."""
    images = {}
    noise = unit_vectors(200, _DIM, seed=77)
    for number, vector in enumerate(unit_vectors(50, _DIM, seed=1)):
        images[f"/p/{number:02d}.jpg"] = vector
        for copy in range(4 if number % 5 == 0 else 0):
            near = vector + 0.05 * noise[number * 4 + copy]
            images[f"/copies/{number:02d}-{copy}.jpg"] = near / np.linalg.norm(near)
    return images


def test_near_duplicates_are_shown_once_and_counted(service: QueryService, tmp_path: Path) -> None:
    images = _with_copies()
    publish_images(DirectoryIndexFiles(tmp_path), images)
    query = Query((TextTerm("dogs"),), 8, duplicate_score=0.98)
    pages = _all_pages(service, tmp_path, query)
    results = [result for page in pages for result in page.results]
    assert [len(page.results) for page in pages] == [8] * (len(results) // 8) + (
        [len(results) % 8] if len(results) % 8 else []
    )
    assert [result.rank for result in results] == list(range(1, len(results) + 1))
    kept = np.stack([images[result.image_path] for result in results])
    alike = kept @ kept.T >= 0.98
    assert alike.sum() == len(kept)  # Each is like itself alone.
    assert [r.score for r in results] == sorted((r.score for r in results), reverse=True)
    best = service.query(tmp_path, "dogs", 1).results[0]
    assert results[0].image_path == best.image_path
    whole = service.answer(tmp_path, replace(query, top_k=1000))
    assert sum(result.stands_for for result in whole.results) == len(images)
    assert whole.next_cursor is None
    plain = service.answer(tmp_path, replace(query, duplicate_score=None))
    assert {result.stands_for for result in plain.results} == {1}
