"""A second tiny model, whose vectors have another length and mean nothing to the first one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imagedex.embedding import EncodedTexts, ImageEncoder, PixelArray, TextEncoder, VectorArray
from imagedex.testing.colour_model import PALETTE, ColourEncoder, shrink


class _RolledEncoder:
    def __init__(self) -> None:
        self._colours = ColourEncoder()

    def encode_images(self, pixels: PixelArray) -> VectorArray:
        return _roll(self._colours.encode_images(pixels))

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        encoded = self._colours.encode_texts(texts)
        return EncodedTexts(_roll(encoded.vectors), encoded.is_cut)


@dataclass(frozen=True, slots=True)
class RolledColourModel:
    """The colour model with its numbers in another order and a zero more."""

    name = "rolled-colours"
    fingerprint = "rolled-colours-1"
    dim = len(PALETTE) + 1
    input_shape = (8, 8, 3)
    preprocess = staticmethod(shrink)

    def load_image_encoder(self, *, threads: int) -> ImageEncoder:
        """Return the image half; there is nothing to load."""
        return _RolledEncoder()

    def load_text_encoder(self, *, threads: int) -> TextEncoder:
        """Return the text half; there is nothing to load."""
        return _RolledEncoder()


def _roll(vectors: VectorArray) -> VectorArray:
    return np.roll(np.pad(vectors, ((0, 0), (0, 1))), 3, axis=1)
