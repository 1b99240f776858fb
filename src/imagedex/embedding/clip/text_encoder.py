"""The loaded text half of a CLIP-like model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.text_spec import TextSpec
from imagedex.embedding.clip.tokenizer import ClipTokenizer, TokenizedText
from imagedex.embedding.interfaces import EncodedTexts, VectorArray
from imagedex.embedding.runtimes import GraphRunner
from imagedex.embedding.texts import MAX_BATCH, batches_of_like_length


class ClipTextEncoder:
    """Texts to vectors. Safe to call from several threads."""

    def __init__(
        self, runner: GraphRunner, *, tokenizer: ClipTokenizer, spec: TextSpec, dim: int
    ) -> None:
        """Encode with ``runner``, the loaded text graph, whose input ``spec`` describes."""
        self._runner = runner
        self._tokenizer = tokenizer
        self._spec = spec
        self._dim = dim

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        """Return the vectors of texts.

        A text counts up to the model's context length. An empty one has a vector too, one
        without meaning. Raises ModelError when the graph fails or gives no direction.
        """
        tokenized = self._tokenizer.encode(texts)
        vectors = np.empty((len(texts), self._dim), dtype=np.float32)
        # A graph with a batch baked in gets rows to fill it, whose vectors are dropped.
        most = self._spec.batch or MAX_BATCH
        for rows in batches_of_like_length([len(text.ids) for text in tokenized], most):
            inputs = self._inputs([tokenized[row] for row in rows])
            vectors[rows] = self._run(inputs)[: len(rows)]
        return EncodedTexts(vectors, tuple(text.is_cut for text in tokenized))

    def _inputs(self, texts: list[TokenizedText]) -> dict[str, NDArray[Any]]:
        spec = self._spec
        length = spec.padded_length or max(len(text.ids) for text in texts)
        shape = (spec.batch or len(texts), length)
        ids = np.full(shape, self._tokenizer.pad_id, dtype=spec.ids_dtype)
        # Rows that only fill a batch are all mask, so that none of them divides by no token.
        mask = np.ones(shape, dtype=spec.ids_dtype)
        for row, text in enumerate(texts):
            count = len(text.ids)
            place = slice(0, count) if spec.padding_side == "right" else slice(length - count, None)
            ids[row, place] = text.ids
            if spec.is_masked:
                mask[row] = 0
                mask[row, place] = 1
        inputs: dict[str, NDArray[Any]] = {spec.ids_input: ids}
        if spec.mask_input is not None:
            inputs[spec.mask_input] = mask
        return inputs

    def _run(self, inputs: dict[str, NDArray[Any]]) -> VectorArray:
        vectors = self._runner.run(inputs)
        expected = (len(inputs[self._spec.ids_input]), self._dim)
        if vectors.shape != expected:
            # One row for many texts would otherwise be taken for the vector of each.
            raise ModelError(
                f"The text graph gave vectors of shape {vectors.shape} where {expected} was "
                "expected from the model's files. Take all files from one place."
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise ModelError(
                "The text graph gave a vector without direction; its weights are damaged. Verify "
                "the model's files, or choose another precision."
            )
        unit: VectorArray = vectors / lengths
        return unit
