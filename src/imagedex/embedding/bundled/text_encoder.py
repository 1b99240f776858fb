"""The loaded text half of the bundled model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from imagedex.core.errors import ModelError
from imagedex.embedding.bundled.query_forms import query_forms
from imagedex.embedding.interfaces import EncodedTexts, VectorArray
from imagedex.embedding.runtimes._onnxruntime import OnnxRuntimeGraph
from imagedex.embedding.texts import batches_of_like_length, readable


class BundledTextEncoder:
    """Texts to vectors. Safe to call from several threads."""

    def __init__(self, session: OnnxRuntimeGraph, *, tokenizer: bytes, dim: int) -> None:
        """Encode with ``session``, the loaded text graph, and the tokenizer's JSON file."""
        self._session = session
        self._dim = dim
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer.decode())
        except Exception as error:  # The tokenizers package raises bare exceptions.
            raise ModelError(
                f"The tokenizer of the bundled model cannot be read: {error}. "
                "Install the version of tokenizers that this release of Imagedex asks for."
            ) from error

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        """Return the vectors of texts.

        A text counts up to its first 256 tokens. An empty one has a vector too, one without
        meaning.
        """
        read = [readable(text) for text in texts]
        forms = [query_forms(text) for text, _ in read]
        encodings = [[self._tokenizer.encode(form) for form in text] for text in forms]
        vectors = self._encode_all([list(one.ids) for text in encodings for one in text])
        ends = np.cumsum([len(text) for text in forms], dtype=np.int64)
        sums = np.empty((len(forms), self._dim), dtype=np.float32)
        for row, (end, text) in enumerate(zip(ends, forms, strict=True)):
            sums[row] = vectors[end - len(text) : end].sum(axis=0)
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        is_cut = (
            is_short or any(one.overflowing for one in encoded)
            for (_, is_short), encoded in zip(read, encodings, strict=True)
        )
        return EncodedTexts(sums, tuple(is_cut))

    def _encode_all(self, tokens: list[list[int]]) -> VectorArray:
        """Return the graph's vectors, shape (n, dim), in input order."""
        vectors = np.empty((len(tokens), self._dim), dtype=np.float32)
        for rows in batches_of_like_length([len(row) for row in tokens]):
            vectors[rows] = self._encode([tokens[row] for row in rows])
        return vectors

    def _encode(self, tokens: list[list[int]]) -> VectorArray:
        shape = (len(tokens), max(map(len, tokens)))
        ids: NDArray[np.int64] = np.zeros(shape, dtype=np.int64)
        mask: NDArray[np.int64] = np.zeros(shape, dtype=np.int64)
        for row, row_tokens in enumerate(tokens):
            ids[row, : len(row_tokens)] = row_tokens
            mask[row, : len(row_tokens)] = 1
        return self._session.run({"input_ids": ids, "attention_mask": mask})
