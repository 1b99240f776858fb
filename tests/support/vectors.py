"""An index of made-up vectors, for what depends on their number and not on their meaning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagedex.core.images import FileStamp, ImageFacts
from imagedex.embedding import EmbeddingModel
from imagedex.segments import Commit, DirectoryIndexFiles, Part


def clustered_vectors(count: int, dim: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Return unit vectors: float32, shape (count, dim).

    Around a centre for every hundred of them, the centres around a common direction, as the
    vectors of photos by a CLIP model lie. Vectors of different seeds have the same centres.
    """
    return np.concatenate(list(clustered_blocks(count, dim, seed=seed)))


def clustered_blocks(
    count: int, dim: int, *, seed: int = 0, of: int | None = None, rows: int = 50_000
) -> Iterator[NDArray[np.float32]]:
    """Yield such vectors, at most ``rows`` at a time, which bounds the memory.

    ``of`` is how many vectors the centres are for, where that is not ``count``.
    """
    random = np.random.default_rng(1)
    centres = random.standard_normal((max(10, (of or count) // 100), dim), dtype=np.float32)
    centres += 0.8 * random.standard_normal(dim, dtype=np.float32)
    random = np.random.default_rng(seed)
    for start in range(0, count, rows):
        block = random.standard_normal((min(rows, count - start), dim), dtype=np.float32)
        block *= 0.7
        block += centres[random.integers(0, len(centres), len(block))]
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        yield block


def made_up_facts(first: int, count: int) -> tuple[ImageFacts, ...]:
    """Return what an index records of so many photos, numbered from ``first``."""
    return tuple(
        ImageFacts(
            image_path=f"/photos/{number // 1000:03d}/picture-{number:06d}.jpg",
            content_hash=f"{number:064x}",
            stamp=FileStamp(_size(number), mtime_ns=1_700_000_000_000_000_000 + number),
            width=1600,
            height=1200,
            format="JPEG",
        )
        for number in range(first, first + count)
    )


def _size(number: int) -> int:
    """Return bytes that, as those of photos, do not follow from one photo to the next."""
    return 1_000_000 + number * 2_654_435_761 % 4_000_000


def make_index(index_prefix: Path, model: EmbeddingModel, count: int) -> None:
    """Publish ``count`` clustered unit vectors as the first generation of an index."""
    vectors = clustered_vectors(count, model.dim)
    files = DirectoryIndexFiles(index_prefix)
    part = files.write_part(
        "idx_20250101_000000_0000",
        0,
        1,
        Part(made_up_facts(0, count), vectors, model.fingerprint),
    )
    files.commit(
        Commit(
            expected_generation=0,
            fence=1,
            model_name=model.name,
            fingerprint=model.fingerprint,
            dim=model.dim,
            job_id="idx_20250101_000000_0000",
            chunks=(0,),
            parts=(part,),
            removed=(),
        )
    )
