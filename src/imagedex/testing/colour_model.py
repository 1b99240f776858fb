"""A tiny embedding model that works: pictures and texts meet in the space of plain colours.

It lets tests of the flow ask real questions ("red" finds the red pictures) without weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from imagedex.embedding import EncodedTexts, ImageEncoder, PixelArray, TextEncoder, VectorArray

PALETTE = {
    "red": (255, 0, 0),
    "green": (0, 160, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "purple": (128, 0, 128),
    "orange": (255, 165, 0),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
}

_SIDE = 8
_MAX_CHARACTERS = 10_000


def shrink(image: Image.Image) -> PixelArray:
    """Return the picture as 8 x 8 pixels."""
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.uint8)


class ColourEncoder:
    """Both halves: a vector holds a picture's, or a text's, share of each colour."""

    def encode_images(self, pixels: PixelArray) -> VectorArray:
        """Count for each colour the pixels that are nearest to it."""
        colours = np.array(list(PALETTE.values()), dtype=np.float32)
        points = pixels.reshape(len(pixels), -1, 1, 3).astype(np.float32)
        nearest = np.square(points - colours).sum(axis=3).argmin(axis=2)
        shares = np.stack([(nearest == colour).sum(axis=1) for colour in range(len(colours))], 1)
        return _unit(shares.astype(np.float32))

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        """Count for each colour how often it is named; a text without one means all colours.

        A text counts up to its first 10,000 characters.
        """
        counts = np.array(
            [[text[:_MAX_CHARACTERS].lower().count(name) for name in PALETTE] for text in texts]
        )
        counts[counts.sum(axis=1) == 0] = 1
        is_cut = tuple(len(text) > _MAX_CHARACTERS for text in texts)
        return EncodedTexts(_unit(counts.astype(np.float32)), is_cut)


@dataclass(frozen=True, slots=True)
class ColourModel:
    """The model; another ``version`` has another fingerprint."""

    version: int = 1

    name = "colours"
    dim = len(PALETTE)
    input_shape = (_SIDE, _SIDE, 3)
    preprocess = staticmethod(shrink)

    @property
    def fingerprint(self) -> str:
        """Differs from version to version."""
        return f"colours-{self.version}"

    def load_image_encoder(self, *, threads: int) -> ImageEncoder:
        """Return the image half; there is nothing to load."""
        return ColourEncoder()

    def load_text_encoder(self, *, threads: int) -> TextEncoder:
        """Return the text half; there is nothing to load."""
        return ColourEncoder()


def _unit(rows: VectorArray) -> VectorArray:
    unit: VectorArray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
