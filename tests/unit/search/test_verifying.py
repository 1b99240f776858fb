"""Indexes are verified while they are served, and damage does not go on being served."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from imagedex.core.errors import CorruptIndex, StorageError
from imagedex.embedding import EncodedTexts
from imagedex.search import BackgroundVerifier, QueryService
from imagedex.segments import DirectoryIndexFiles, FileEntry, integrity, verification
from imagedex.segments.durable import storage_errors
from imagedex.testing.index_files import (
    FINGERPRINT,
    MODEL_NAME,
    expected_hits,
    publish_images,
    unit_vectors,
)
from support.structures import faiss_of, files_with_faiss

_DIM = 64
_VECTORS = unit_vectors(40, _DIM)
_IMAGES = {f"/{i:02d}": vector for i, vector in enumerate(_VECTORS)}
_SECONDS = 30.0


class _Encoder:
    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        vectors = [unit_vectors(1, _DIM, seed=len(text)) for text in texts]
        return EncodedTexts(np.concatenate(vectors), (False,) * len(texts))


def _service(on_opened: Callable[[Path], object]) -> QueryService:
    return QueryService(
        files_of=partial(DirectoryIndexFiles, large_bytes=1),
        encoder=_Encoder(),
        model_name=MODEL_NAME,
        fingerprint=FINGERPRINT,
        dim=_DIM,
        cache_entries=16,
        on_opened=on_opened,
    )


def _found(service: QueryService, index_prefix: Path, text: str) -> list[tuple[str, float]]:
    answer = service.query(index_prefix, text, 40)
    return [(result.image_path, result.score) for result in answer.results]


def _expected(text: str) -> list[tuple[str, float]]:
    return expected_hits(_IMAGES, _Encoder().encode_texts([text]).vectors[0], 40)


def _zero_the_end(path: Path, of: bytes = b"") -> None:
    data = bytearray(path.read_bytes())
    start = data.index(of) if of else len(data) - 40
    data[start : start + 40] = bytes(40)
    path.unlink()
    path.write_bytes(data)


def _never() -> bool:
    return False


def test_each_generation_that_is_opened_is_told_once(tmp_path: Path) -> None:
    told: list[Path] = []
    service = _service(told.append)
    assert service.refresh(tmp_path) == 0
    files = DirectoryIndexFiles(tmp_path)
    publish_images(files, _IMAGES)
    service.refresh(tmp_path)
    service.refresh(tmp_path)
    assert told == [tmp_path]
    publish_images(files, {}, gone=["/00"])
    service.refresh(tmp_path)
    assert told == [tmp_path, tmp_path]


def test_damaged_vectors_are_replaced_while_they_are_served(tmp_path: Path) -> None:
    manifest = publish_images(files_with_faiss(tmp_path), _IMAGES)
    _zero_the_end(tmp_path / faiss_of(manifest.segments[0]).name)
    service = _service(lambda _: None)
    service.refresh(tmp_path)
    # An answer that is wrong, and is not to stay in the cache.
    assert _found(service, tmp_path, "dogs") != _expected("dogs")
    with capture_logs() as logs:
        service.verify(tmp_path, _never)
    assert [entry["event"] for entry in logs] == [
        "index_file_damaged",
        "faiss_file_rebuilt_in_memory",
    ]
    assert faiss_of(manifest.segments[0]).name in logs[0]["reason"]
    assert _found(service, tmp_path, "dogs") == _expected("dogs")
    with capture_logs() as logs:
        service.verify(tmp_path, _never)
    assert logs == []


def test_what_nothing_can_make_good_is_not_served_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagedex.search.live._DAMAGE_SECONDS", 0.0)
    manifest = publish_images(files_with_faiss(tmp_path), _IMAGES)
    segment = manifest.segments[0]
    service = _service(lambda _: None)
    service.refresh(tmp_path)
    whole = (tmp_path / segment.parquet.name).read_bytes()
    _zero_the_end(tmp_path / faiss_of(segment).name)
    _zero_the_end(tmp_path / segment.parquet.name, of=_VECTORS[20].tobytes())
    with capture_logs() as logs:
        service.verify(tmp_path, _never)
    assert logs[-1]["event"] == "generation_not_served"
    with pytest.raises(CorruptIndex, match=segment.parquet.name):
        service.query(tmp_path, "dogs", 5)
    with pytest.raises(CorruptIndex, match=segment.parquet.name):
        service.check(tmp_path)
    (tmp_path / segment.parquet.name).write_bytes(whole)
    assert _found(service, tmp_path, "dogs") == _expected("dogs")


def test_a_damaged_index_is_not_opened_anew_for_each_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = publish_images(files_with_faiss(tmp_path), _IMAGES)
    path = tmp_path / manifest.segments[0].parquet.name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    service = _service(lambda _: None)
    opened = 0
    real = DirectoryIndexFiles.open

    def counted(files: DirectoryIndexFiles, *arguments: Any) -> Any:
        nonlocal opened
        opened += 1
        return real(files, *arguments)

    monkeypatch.setattr(DirectoryIndexFiles, "open", counted)
    for _ in range(3):
        with pytest.raises(CorruptIndex, match=path.name):
            service.query(tmp_path, "dogs", 5)
    assert opened == 1
    path.write_bytes(whole)
    # Whoever mended it and says so need not wait.
    service.refresh(tmp_path)
    assert _found(service, tmp_path, "dogs") == _expected("dogs")


def test_vectors_that_the_disk_cannot_read_are_made_good_from_the_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = publish_images(files_with_faiss(tmp_path), _IMAGES)
    bad = tmp_path / faiss_of(manifest.segments[0]).name
    service = _service(lambda _: None)
    service.refresh(tmp_path)
    real = integrity.require_intact

    def failing(index_prefix: Path, entry: FileEntry, **options: Any) -> Path:
        path = index_prefix / entry.name
        if path == bad:
            with storage_errors("read", path):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(index_prefix, entry, **options)

    monkeypatch.setattr(verification, "require_intact", failing)
    with capture_logs() as logs:
        service.verify(tmp_path, _never)
    assert [entry["event"] for entry in logs] == [
        "index_file_damaged",
        "faiss_file_rebuilt_in_memory",
    ]
    assert _found(service, tmp_path, "dogs") == _expected("dogs")


def test_damaged_vectors_are_not_served_while_the_storage_keeps_them_from_being_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = publish_images(files_with_faiss(tmp_path), _IMAGES)
    service = _service(lambda _: None)
    service.refresh(tmp_path)
    _zero_the_end(tmp_path / faiss_of(manifest.segments[0]).name)

    def fail(*_: object) -> None:
        raise StorageError("The share is away.")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryIndexFiles, "open", fail)
        service.verify(tmp_path, _never)
        with pytest.raises(StorageError, match="away"):
            service.query(tmp_path, "dogs", 5)
    assert _found(service, tmp_path, "dogs") == _expected("dogs")


def test_a_sound_index_goes_on_being_served_by_the_same_objects(tmp_path: Path) -> None:
    publish_images(files_with_faiss(tmp_path), _IMAGES)
    service = _service(lambda _: None)
    service.refresh(tmp_path)
    service.query(tmp_path, "dogs", 5)
    service.verify(tmp_path, _never)
    assert service.query(tmp_path, "dogs", 5).is_cached


def test_an_index_that_is_not_served_is_not_verified(tmp_path: Path) -> None:
    _service(lambda _: None).verify(tmp_path, _never)


def test_what_is_asked_for_is_verified_in_order_and_a_share_that_is_away_stops_nothing() -> None:
    verified: list[Path] = []
    is_done = threading.Event()

    def verify(index_prefix: Path, should_stop: Callable[[], bool]) -> None:
        verified.append(index_prefix)
        if index_prefix == Path("/a"):
            raise StorageError("The share is away.")
        if index_prefix == Path("/c"):
            is_done.set()

    verifier = BackgroundVerifier(verify)
    for name in ("/a", "/b", "/a"):
        verifier.ask(Path(name))
    verifier.start()
    verifier.ask(Path("/c"))
    assert is_done.wait(_SECONDS)
    verifier.close()
    assert verified == [Path("/a"), Path("/b"), Path("/c")]


def test_the_end_does_not_wait_for_a_file(tmp_path: Path) -> None:
    has_begun = threading.Event()

    def verify(_: Path, should_stop: Callable[[], bool]) -> None:
        has_begun.set()
        waiting = threading.Event()
        while not should_stop():
            waiting.wait(0.01)

    verifier = BackgroundVerifier(verify)
    verifier.start()
    verifier.ask(tmp_path)
    verifier.ask(tmp_path / "never")
    assert has_begun.wait(_SECONDS)
    verifier.close()


def test_one_that_was_never_started_ends_too(tmp_path: Path) -> None:
    verifier = BackgroundVerifier(lambda *_: None)
    verifier.ask(tmp_path)
    verifier.close()
