"""The loaded image half of the bundled model."""

from __future__ import annotations

import numpy as np

from imagedex.embedding.interfaces import PixelArray, VectorArray
from imagedex.embedding.runtimes._onnxruntime import OnnxRuntimeGraph

# More pictures at once are not faster, but their activations would take more memory.
_MAX_BATCH = 4


class BundledImageEncoder:
    """Pixels to vectors. One caller at a time."""

    def __init__(
        self, session: OnnxRuntimeGraph, *, input_shape: tuple[int, ...], dim: int
    ) -> None:
        """Encode with ``session``, the loaded image graph."""
        self._session = session
        self._input_shape = input_shape
        self._dim = dim

    def encode_images(self, pixels: PixelArray) -> VectorArray:
        """Return float32 vectors, shape (n, dim), rows of unit length in input order.

        ``pixels`` is uint8 of shape (n, *input_shape).
        """
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self._input_shape:
            raise ValueError(
                f"The bundled model takes uint8 pixels of shape (n, *{self._input_shape}), "
                f"not {pixels.dtype} of shape {pixels.shape}; use the model's preprocess."
            )
        vectors = np.empty((len(pixels), self._dim), dtype=np.float32)
        for start in range(0, len(pixels), _MAX_BATCH):
            batch = pixels[start : start + _MAX_BATCH]
            vectors[start : start + len(batch)] = self._session.run({"pixels": batch})
        return vectors
