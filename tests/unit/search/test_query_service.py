"""Answering queries from real files with an encoder that derives vectors from letters."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from imagedex.core.errors import (
    CorruptIndex,
    FingerprintMismatch,
    InvalidRequest,
    ModelError,
    StorageError,
)
from imagedex.core.ids import image_id_of
from imagedex.embedding import EncodedTexts
from imagedex.search import Query, QueryService, TextTerm
from imagedex.segments import DirectoryIndexFiles, ImageFilter
from imagedex.testing.index_files import (
    FINGERPRINT,
    MODEL_NAME,
    expected_hits,
    publish_images,
    unit_vectors,
)

_DIM = 8
_IMAGES = {f"/p/{i}.jpg": vector for i, vector in enumerate(unit_vectors(30, _DIM))}


class _LetterEncoder:
    """Maps each text to a random vector that depends on the text alone, and counts."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        self.encoded += texts
        vectors = [unit_vectors(1, _DIM, seed=sum(t.encode())) for t in texts]
        return EncodedTexts(np.concatenate(vectors), tuple(len(text) > 100 for text in texts))


class _BrokenEncoder:
    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        return EncodedTexts(np.full((len(texts), _DIM), np.nan, np.float32), (False,) * len(texts))


@pytest.fixture
def encoder() -> _LetterEncoder:
    return _LetterEncoder()


def _make_service(encoder: _LetterEncoder | _BrokenEncoder, entries: int = 16) -> QueryService:
    return QueryService(
        files_of=DirectoryIndexFiles,
        encoder=encoder,
        model_name=MODEL_NAME,
        fingerprint=FINGERPRINT,
        dim=_DIM,
        cache_entries=entries,
    )


@pytest.fixture
def service(encoder: _LetterEncoder) -> QueryService:
    return _make_service(encoder)


def _vector_of(text: str) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = _LetterEncoder().encode_texts([text]).vectors[0]
    return vector


def test_an_answer_is_ranked_and_complete(service: QueryService, tmp_path: Path) -> None:
    publish_images(DirectoryIndexFiles(tmp_path), _IMAGES)
    answer = service.query(tmp_path, "dogs in a park", 5)
    expected = expected_hits(_IMAGES, _vector_of("dogs in a park"), 5)
    assert [(r.image_path, r.score) for r in answer.results] == expected
    assert [r.rank for r in answer.results] == [1, 2, 3, 4, 5]
    assert [r.image_id for r in answer.results] == [image_id_of(path) for path, _ in expected]
    assert (answer.query, answer.total_images, answer.generation) == ("dogs in a park", 30, 1)
    assert (answer.model_name, answer.is_cached) == (MODEL_NAME, False)
    assert answer.query_time_seconds >= 0


def test_where_nothing_is_indexed_nothing_is_found(service: QueryService, tmp_path: Path) -> None:
    answer = service.query(tmp_path / "index", "dogs", 5)
    assert (answer.results, answer.generation, answer.total_images) == ((), 0, 0)
    assert service.refresh(tmp_path / "index") == 0
    assert service.check(tmp_path / "index") == 0
    publish_images(DirectoryIndexFiles(tmp_path / "index"), _IMAGES)
    assert service.query(tmp_path / "index", "dogs", 5).generation == 1


def test_scores_never_leave_the_range_of_a_cosine(service: QueryService, tmp_path: Path) -> None:
    # Within the tolerance of a part, so that the plain product is above 1.
    long = _vector_of("long") * np.float32(1.0009)
    publish_images(DirectoryIndexFiles(tmp_path), {"/a": long, "/b": -long})
    assert [r.score for r in service.query(tmp_path, "long", 2).results] == [1.0, -1.0]


@pytest.mark.parametrize(
    ("text", "top_k", "reason"),
    [
        ("", 1, "empty"),
        (" \t\n\u2003", 1, "empty"),
        ("x" * 10_001, 1, "10001 characters"),
        ("a\0b", 1, "NUL"),
        ("a\ud800", 1, "surrogate"),
        ("a", 0, "top_k is 0"),
        ("a", -1, "top_k is -1"),
        ("a", 1001, "top_k is 1001"),
    ],
)
def test_nonsense_is_refused_before_it_is_encoded(
    service: QueryService,
    encoder: _LetterEncoder,
    tmp_path: Path,
    text: str,
    top_k: int,
    reason: str,
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        service.query(tmp_path, text, top_k)
    assert encoder.encoded == []


def test_the_same_query_is_answered_from_the_cache_within_a_generation(
    service: QueryService, encoder: _LetterEncoder, tmp_path: Path
) -> None:
    files = DirectoryIndexFiles(tmp_path)
    publish_images(files, _IMAGES)
    first = service.query(tmp_path, "dogs", 3)
    second = service.query(tmp_path, "dogs", 3)
    assert second == replace(first, is_cached=True, query_time_seconds=second.query_time_seconds)
    assert not service.query(tmp_path, "dogs", 4).is_cached
    assert not service.query(tmp_path, "dogs ", 3).is_cached
    publish_images(files, {"/best": _vector_of("dogs")})
    assert service.query(tmp_path, "dogs", 3).generation == 1  # Until it is told.
    assert service.refresh(tmp_path) == 2
    third = service.query(tmp_path, "dogs", 3)
    assert (third.generation, third.is_cached) == (2, False)
    assert third.results[0].image_path == "/best"
    assert encoder.encoded == ["dogs", "dogs "]  # Publishing needs no text encoded again.


def test_a_service_without_cache_entries_encodes_each_time(
    encoder: _LetterEncoder, tmp_path: Path
) -> None:
    service = _make_service(encoder, entries=0)
    publish_images(DirectoryIndexFiles(tmp_path), _IMAGES)
    assert not service.query(tmp_path, "dogs", 3).is_cached
    assert not service.query(tmp_path, "dogs", 3).is_cached
    assert encoder.encoded == ["dogs", "dogs"]


def test_answers_of_one_index_are_not_given_for_another(
    service: QueryService, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        images = {f"/{name}/{path}": vector for path, vector in _IMAGES.items()}
        publish_images(DirectoryIndexFiles(tmp_path / name), images)
    for name in ("one", "two", "one"):
        answer = service.query(tmp_path / name, "dogs", 3)
        assert all(result.image_path.startswith(f"/{name}/") for result in answer.results)


def test_an_index_of_another_model_is_refused_and_both_are_named(
    encoder: _LetterEncoder, tmp_path: Path
) -> None:
    publish_images(DirectoryIndexFiles(tmp_path), _IMAGES)
    service = QueryService(
        files_of=DirectoryIndexFiles,
        encoder=encoder,
        model_name="other",
        fingerprint="other-9",
        dim=_DIM,
        cache_entries=4,
    )
    with pytest.raises(FingerprintMismatch, match=rf"{FINGERPRINT}.*other-9"):
        service.query(tmp_path, "dogs", 3)
    with pytest.raises(FingerprintMismatch):
        service.check(tmp_path)


def test_the_old_generation_answers_while_the_new_one_cannot_be_opened(
    service: QueryService, tmp_path: Path
) -> None:
    files = DirectoryIndexFiles(tmp_path)
    publish_images(files, _IMAGES)
    assert service.refresh(tmp_path) == 1
    manifest = publish_images(files, {"/new": _vector_of("new")})
    damaged = tmp_path / manifest.segments[-1].parquet.name
    intact = damaged.read_bytes()
    damaged.write_bytes(intact[:-1])
    with pytest.raises(CorruptIndex, match="segments/"):
        service.refresh(tmp_path)
    assert service.query(tmp_path, "dogs", 3).generation == 1
    assert service.check(tmp_path) == 1
    damaged.write_bytes(intact)
    assert service.refresh(tmp_path) == 2


def test_an_index_that_vanishes_is_not_an_empty_index(
    service: QueryService, tmp_path: Path
) -> None:
    publish_images(DirectoryIndexFiles(tmp_path / "index"), _IMAGES)
    assert service.refresh(tmp_path / "index") == 1
    (tmp_path / "index").rename(tmp_path / "unmounted")
    with pytest.raises(StorageError, match="mounted"):
        service.refresh(tmp_path / "index")
    assert len(service.query(tmp_path / "index", "dogs", 3).results) == 3


def test_the_check_encodes_anew_each_time(
    service: QueryService, encoder: _LetterEncoder, tmp_path: Path
) -> None:
    publish_images(DirectoryIndexFiles(tmp_path), _IMAGES)
    assert service.check(tmp_path) == 1
    assert service.check(tmp_path) == 1
    assert len(encoder.encoded) == 2
    publish_images(DirectoryIndexFiles(tmp_path), {}, gone=list(_IMAGES))
    service.refresh(tmp_path)
    assert service.check(tmp_path) == 2


def test_vectors_that_are_not_finite_are_an_error_of_the_model(tmp_path: Path) -> None:
    publish_images(DirectoryIndexFiles(tmp_path), _IMAGES)
    service = _make_service(_BrokenEncoder())
    with pytest.raises(ModelError, match="not finite"):
        service.query(tmp_path, "dogs", 3)
    with pytest.raises(ModelError):
        service.check(tmp_path)


def test_an_answer_says_that_the_text_was_cut_also_from_the_cache(
    service: QueryService, tmp_path: Path
) -> None:
    publish_images(DirectoryIndexFiles(tmp_path), _IMAGES)
    long = "a long text " * 20
    assert [service.query(tmp_path, long, 1).is_text_cut for _ in range(2)] == [True, True]
    assert not service.query(tmp_path, "a short one", 1).is_text_cut


class _GatedEncoder(_LetterEncoder):
    """Holds the first batch until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.batches: list[int] = []

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        self.batches.append(len(texts))
        self.begun.set()
        assert self.gate.wait(60)
        return super().encode_texts(texts)


def test_queries_that_come_together_are_encoded_together_and_answered_as_if_alone(
    tmp_path: Path,
) -> None:
    publish_images(DirectoryIndexFiles(tmp_path), _IMAGES)
    encoder = _GatedEncoder()
    service = _make_service(encoder)
    service.refresh(tmp_path)
    serving = service._live[tmp_path].serving
    assert serving is not None
    texts = [f"text {number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        futures = [pool.submit(service.query, tmp_path, texts[0], 3)]
        assert encoder.begun.wait(60)
        futures += [pool.submit(service.query, tmp_path, text, 3) for text in texts[1:]]
        deadline = time.monotonic() + 60
        while len(serving.plain._waiting) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        encoder.gate.set()
        answers = [future.result(60) for future in futures]
    assert encoder.batches == [1, 5]
    for text, answer in zip(texts, answers, strict=True):
        found = [(result.image_path, result.score) for result in answer.results]
        assert found == expected_hits(_IMAGES, _vector_of(text), 3)


class _SlowTexts(_LetterEncoder):
    """Holds what has a slow text until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.gate = threading.Event()

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        if any(text.startswith("slow") for text in texts):
            self.begun.set()
            assert self.gate.wait(60)
        return super().encode_texts(texts)


def test_a_plain_query_does_not_wait_for_one_that_may_cost_much_more(tmp_path: Path) -> None:
    publish_images(DirectoryIndexFiles(tmp_path), _IMAGES)
    encoder = _SlowTexts()
    service = _make_service(encoder)
    filtered = replace(Query.of_text("slow", 1), image_filter=ImageFilter(min_bytes=1))
    terms = tuple(TextTerm(f"slow {number}") for number in range(3))
    costly = [filtered, Query(terms=terms, top_k=1)]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(service.answer, tmp_path, query) for query in costly]
        assert encoder.begun.wait(60)
        assert len(service.query(tmp_path, "quick", 3).results) == 3
        assert not any(future.done() for future in futures)
        encoder.gate.set()
        assert [len(future.result(60).results) for future in futures] == [1, 1]
