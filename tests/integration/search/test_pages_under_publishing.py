"""Pages and filters in threads while generations are published, served and swept."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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

_DIM = 16
_FILTER = ImageFilter(path_prefix="/a")
_QUERIES = [
    Query((TextTerm(f"text {i}"),), 20, image_filter)
    for i in range(3)
    for image_filter in (None, _FILTER)
]


class _Encoder:
    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        vectors = [unit_vectors(1, _DIM, seed=sum(t.encode())) for t in texts]
        return EncodedTexts(np.concatenate(vectors), (False,) * len(texts))


def test_all_pages_of_a_query_are_whole_from_one_generation(tmp_path: Path) -> None:
    files = DirectoryIndexFiles(tmp_path)
    service = QueryService(
        files_of=DirectoryIndexFiles,
        encoder=_Encoder(),
        model_name=MODEL_NAME,
        fingerprint=FINGERPRINT,
        dim=_DIM,
        cache_entries=4,
    )
    names = [f"/{'ab'[i % 2]}/{i}" for i in range(120)]
    images = dict(zip(names, unit_vectors(120, _DIM), strict=True))
    history = {publish_images(files, images).generation: dict(images)}
    service.refresh(tmp_path)
    begun = threading.Barrier(4)
    finished = threading.Event()

    def ask(seed: int) -> list[tuple[Query, int, list[tuple[str, float]]]]:
        chance = np.random.default_rng(seed)
        rankings: list[tuple[Query, int, list[tuple[str, float]]]] = []
        begun.wait(60)
        while not finished.is_set() or not rankings:
            query = _QUERIES[chance.integers(len(_QUERIES))]
            answer = service.answer(tmp_path, query)
            pages = [answer]
            while answer.next_cursor is not None:
                answer = service.answer(tmp_path, query, answer.next_cursor)
                pages.append(answer)
            assert len({page.generation for page in pages}) == 1
            found = [(r.image_path, r.score) for page in pages for r in page.results]
            rankings.append((query, answer.generation, found))
        return rankings

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, seed) for seed in range(3)]
        try:
            begun.wait(60)
            for step in range(8):
                moved = unit_vectors(len(names), _DIM, seed=100 + step)
                images = dict(zip(names, moved, strict=True))
                history[publish_images(files, images, chunk=step).generation] = images
                service.refresh(tmp_path)
                files.sweep(keep_jobs=[])
        finally:
            finished.set()
        rankings = [ranking for future in asking for ranking in future.result()]

    for query, generation, found in rankings:
        allowed: dict[str, NDArray[np.float32]] = {
            path: vector
            for path, vector in history[generation].items()
            if query.image_filter is None or path.startswith("/a/")
        }
        vector = _Encoder().encode_texts([query.text]).vectors[0]
        assert found == expected_hits(allowed, vector, len(names))
    assert len({generation for _, generation, _ in rankings}) > 1
