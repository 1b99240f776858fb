from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from imagedex.core.errors import ModelError
from imagedex.embedding.clip import ClipModel
from imagedex.embedding.clip.text_encoder import ClipTextEncoder
from imagedex.embedding.clip.tokenizer import ClipTokenizer
from imagedex.embedding.runtimes import Runtime
from support.tiny_models import write_tiny_clip


class FixedGraph:
    """Gives the same vectors whatever it is asked."""

    runtime = Runtime.ONNXRUNTIME

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        return self._vectors


@pytest.mark.parametrize("shape", [(1, 32), (3, 32), (2, 31)])
def test_other_than_one_vector_for_each_text_is_refused(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    model = ClipModel.open(write_tiny_clip(tmp_path / "tiny"), name="tiny")
    spec = model.specification.text
    encoder = ClipTextEncoder(
        FixedGraph(np.ones(shape, np.float32)),
        tokenizer=ClipTokenizer(model.files.tokenizer, spec),
        spec=spec,
        dim=32,
    )
    with pytest.raises(ModelError, match=r"where \(2, 32\) was expected"):
        encoder.encode_texts(["a dog", "a cat"])
