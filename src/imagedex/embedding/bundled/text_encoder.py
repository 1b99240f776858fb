"""The loaded text half of the bundled model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from imagedex.core.errors import ModelError
from imagedex.embedding._onnxruntime import OnnxSession
from imagedex.embedding.bundled.query_forms import query_forms
from imagedex.embedding.interfaces import EncodedTexts, VectorArray

_MAX_BATCH = 32
# The tokenizer cuts at 256 tokens but reads the whole text first, so that a megabyte of text
# would cost seconds. No 256 words of a real text are longer than this.
_MAX_CHARACTERS = 16_384


class BundledTextEncoder:
    """Texts to vectors. Safe to call from several threads."""

    def __init__(self, session: OnnxSession, *, tokenizer: bytes, dim: int) -> None:
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
        forms = [query_forms(text[:_MAX_CHARACTERS]) for text in texts]
        encodings = [[self._tokenize(form) for form in text] for text in forms]
        vectors = self._encode_all([list(one.ids) for text in encodings for one in text])
        ends = np.cumsum([len(text) for text in forms], dtype=np.int64)
        sums = np.empty((len(forms), self._dim), dtype=np.float32)
        for row, (end, text) in enumerate(zip(ends, forms, strict=True)):
            sums[row] = vectors[end - len(text) : end].sum(axis=0)
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        is_cut = (
            len(text) > _MAX_CHARACTERS or any(one.overflowing for one in encoded)
            for text, encoded in zip(texts, encodings, strict=True)
        )
        return EncodedTexts(sums, tuple(is_cut))

    def _encode_all(self, tokens: list[list[int]]) -> VectorArray:
        """Return the graph's vectors, shape (n, dim), in input order."""
        vectors = np.empty((len(tokens), self._dim), dtype=np.float32)
        # Batches of like length need the least padding.
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        for start in range(0, len(order), _MAX_BATCH):
            rows = order[start : start + _MAX_BATCH]
            vectors[rows] = self._encode([tokens[row] for row in rows])
        return vectors

    def _tokenize(self, text: str) -> Encoding:
        # Half of a surrogate pair, which JSON can carry, is no text that the tokenizer takes.
        readable = text.encode("utf-8", "replace").decode()
        return self._tokenizer.encode(readable)

    def _encode(self, tokens: list[list[int]]) -> VectorArray:
        shape = (len(tokens), max(map(len, tokens)))
        ids: NDArray[np.int64] = np.zeros(shape, dtype=np.int64)
        mask: NDArray[np.int64] = np.zeros(shape, dtype=np.int64)
        for row, row_tokens in enumerate(tokens):
            ids[row, : len(row_tokens)] = row_tokens
            mask[row, : len(row_tokens)] = 1
        return self._session.run({"input_ids": ids, "attention_mask": mask})
