"""From a decoded picture to the pixels that the bundled image graph takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from imagedex.embedding.interfaces import PixelArray

_WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Letterbox:
    """Fit the whole picture into a square of ``side`` pixels, the rest white.

    Nothing is cropped, since a query may be about what stands at the edge, and shapes are
    kept. Its result is part of the model's identity: whoever changes a pixel of it also
    raises ``version``.
    """

    side: int
    version: str = "letterbox-1"

    def __call__(self, image: Image.Image) -> PixelArray:
        """Return uint8 RGB pixels, shape (side, side, 3)."""
        if image.mode != "RGB":
            image = image.convert("RGB")
        longest = max(image.size)
        # At least one pixel stays of the short edge of a picture such as 1 x 5000.
        width, height = (max(1, round(edge * self.side / longest)) for edge in image.size)
        # The gap bounds the cost for huge pictures: they shrink by whole factors first.
        resized = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        canvas = Image.new("RGB", (self.side, self.side), _WHITE)
        canvas.paste(resized, ((self.side - width) // 2, (self.side - height) // 2))
        return np.asarray(canvas, dtype=np.uint8)
