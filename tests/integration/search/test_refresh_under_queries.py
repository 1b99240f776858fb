"""Queries in threads while generations are published, served and swept."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from imagedex.embedding import EncodedTexts
from imagedex.search import QueryAnswer, QueryService
from imagedex.segments import DirectoryIndexFiles
from imagedex.testing.index_files import (
    FINGERPRINT,
    MODEL_NAME,
    expected_hits,
    publish_images,
    unit_vectors,
)

_DIM = 16
_TEXTS = [f"text {i}" for i in range(6)]
_TOP_K = 7


class _Encoder:
    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        vectors = [unit_vectors(1, _DIM, seed=sum(t.encode())) for t in texts]
        return EncodedTexts(np.concatenate(vectors), (False,) * len(texts))


def test_each_answer_is_whole_from_one_generation(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    service = QueryService(
        files_of=DirectoryIndexFiles,
        encoder=_Encoder(),
        model_name=MODEL_NAME,
        fingerprint=FINGERPRINT,
        dim=_DIM,
        cache_entries=4,
    )
    images = {f"/{i}": vector for i, vector in enumerate(unit_vectors(100, _DIM))}
    history = {publish_images(files, images).generation: dict(images)}
    service.refresh(tmp_path)
    begun = threading.Barrier(5)
    finished = threading.Event()

    def ask(seed: int) -> list[QueryAnswer]:
        chance = np.random.default_rng(seed)
        answers = [service.query(tmp_path, _TEXTS[0], _TOP_K)]
        newest = answers[0].generation
        begun.wait(60)
        while not finished.is_set():
            answers.append(service.query(tmp_path, _TEXTS[chance.integers(6)], _TOP_K))
            # No thread ever goes back to an older generation.
            assert answers[-1].generation >= newest
            newest = answers[-1].generation
        return answers

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, seed) for seed in range(4)]
        try:
            begun.wait(60)
            for step in range(8):
                # Every image changes places with another, so that mixtures would be seen.
                moved = unit_vectors(len(images), _DIM, seed=100 + step)
                images = dict(zip(images, moved, strict=True))
                history[publish_images(files, images, chunk=step).generation] = images
                service.refresh(tmp_path)
                files.sweep(keep_jobs=[])
        finally:
            finished.set()
        answers = [answer for future in asking for answer in future.result()]

    expected = {
        (generation, text): expected_hits(then, _Encoder().encode_texts([text]).vectors[0], _TOP_K)
        for generation, then in history.items()
        for text in _TEXTS
    }
    for answer in answers:
        found = [(result.image_path, result.score) for result in answer.results]
        assert found == expected[answer.generation, answer.query]
        assert answer.total_images == 100
    assert len({answer.generation for answer in answers}) > 1
    assert service.query(tmp_path, _TEXTS[0], _TOP_K).generation == 9
