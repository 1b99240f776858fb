"""The loaded image half of a CLIP model."""

from __future__ import annotations

import numpy as np

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.image_spec import ImageSpec
from imagedex.embedding.interfaces import PixelArray, VectorArray
from imagedex.embedding.runtimes import PIXELS, GraphRunner


class ClipImageEncoder:
    """Pixels to vectors. One caller at a time."""

    def __init__(self, runner: GraphRunner, *, spec: ImageSpec, dim: int) -> None:
        """Encode with ``runner``, the image graph loaded with a pixel input."""
        self._runner = runner
        self._shape = (spec.height, spec.width, 3)
        self._dim = dim

    def encode_images(self, pixels: PixelArray) -> VectorArray:
        """Return float32 vectors, shape (n, dim), rows of unit length in input order.

        ``pixels`` is uint8 of shape (n, height, width, 3), n >= 1. All of them go through the
        graph at once, so the caller decides on speed and memory by how many there are. The row
        of a picture that gets no direction, by an overflow of a low precision perhaps, is NaN.
        """
        if pixels.dtype != np.uint8 or pixels.shape[1:] != self._shape or len(pixels) == 0:
            raise ValueError(
                f"The model takes uint8 pixels of shape (n, *{self._shape}), n >= 1, not "
                f"{pixels.dtype} of shape {pixels.shape}; use the model's preprocess."
            )
        vectors = self._runner.run({PIXELS: pixels})
        if vectors.shape != (len(pixels), self._dim):
            raise ModelError(
                f"The image graph returned vectors of shape {vectors.shape} for {len(pixels)} "
                f"pictures; expected is ({len(pixels)}, {self._dim}). Get the model again."
            )
        # Graphs differ in whether they do this; twice does no harm.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        has_direction = np.isfinite(lengths) & (lengths > 0)
        # One picture may be odd, but when all of several fail, it is the model.
        if len(vectors) > 1 and not has_direction.any():
            raise ModelError(
                f"The image graph returned vectors that are zero or not finite for all of "
                f"{len(vectors)} pictures. Try precision fp32; if that is what it is, get the "
                "model again."
            )
        lengths[~has_direction] = np.nan
        unit: VectorArray = vectors / lengths
        return unit
