"""An index of made-up vectors, for what depends on their number and not on their meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imagedex.core.images import FileStamp, ImageFacts
from imagedex.embedding import EmbeddingModel
from imagedex.segments import Commit, DirectoryIndexFiles, Part


def make_index(index_prefix: Path, model: EmbeddingModel, count: int) -> None:
    """Publish ``count`` random unit vectors as the first generation of an index."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((count, model.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
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
    part = files.write_part("idx_20250101_000000_0000", 0, 1, Part(facts, vectors))
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
