"""An index of made-up vectors, for what depends on their number and not on their meaning."""

from __future__ import annotations

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
    random = np.random.default_rng(1)
    centres = random.standard_normal((max(10, count // 100), dim), dtype=np.float32)
    centres += 0.8 * random.standard_normal(dim, dtype=np.float32)
    random = np.random.default_rng(seed)
    vectors = np.empty((count, dim), dtype=np.float32)
    for start in range(0, count, 50_000):  # Bounds the memory.
        part = vectors[start : start + 50_000]
        random.standard_normal(dtype=np.float32, out=part)
        part *= 0.7
        part += centres[random.integers(0, len(centres), len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def make_index(index_prefix: Path, model: EmbeddingModel, count: int) -> None:
    """Publish ``count`` clustered unit vectors as the first generation of an index."""
    vectors = clustered_vectors(count, model.dim)
    facts = tuple(
        ImageFacts(
            image_path=f"/photos/{number // 1000:03d}/picture-{number:06d}.jpg",
            content_hash=f"{number:064x}",
            stamp=FileStamp(size=100_000 + number, mtime_ns=1_700_000_000_000_000_000 + number),
            width=1600,
            height=1200,
            format="JPEG",
        )
        for number in range(count)
    )
    files = DirectoryIndexFiles(index_prefix)
    part = files.write_part(
        "idx_20250101_000000_0000", 0, 1, Part(facts, vectors, model.fingerprint)
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
