"""What decides the image vectors of a CLIP model, in one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

from imagedex.embedding.clip.preprocess import ClipPreprocess
from imagedex.embedding.runtimes import Precision

# Part of every fingerprint: raise it when the same files begin to give other image vectors.
_VERSION = "clip"


def clip_fingerprint(
    precision: Precision, preprocess: ClipPreprocess, *, image_digests: Sequence[str]
) -> str:
    """Return the identity of weights, preprocessing and precision.

    ``image_digests`` has a line ``NAME SHA-256`` for the image graph and for each file with its
    weights, in order of name. Nothing else of a model's files counts, so it can be told of a
    published model before its files are here.
    """
    lines = [
        _VERSION,
        precision.value,
        preprocess.version,
        json.dumps(asdict(preprocess.spec), sort_keys=True),
        *image_digests,
    ]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return f"{_VERSION}-{precision.value}-{digest[:16]}"
