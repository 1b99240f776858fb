"""From a decoded picture to the pixels that a CLIP model takes.

The same pixels, to the bit, as the libraries that the models were trained with make:
torchvision's Resize and CenterCrop in OpenCLIP
(https://github.com/mlfoundations/open_clip/blob/main/src/open_clip/transform.py), and
transformers' image processors for Pillow. Normalisation is left to the runtime.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from imagedex.embedding.clip.image_spec import ImageSpec
from imagedex.embedding.interfaces import PixelArray

_REDUCED_MARGIN: Final = 2
"""How many times as large as its resized form a picture is at least decoded."""

_DIVISORS: Final = (8, 4, 2)
"""By how much libjpeg can divide a picture's edges while it decodes, most first."""

_LONGEST_STRIP: Final = 64
"""How many times as long as the crop a resized picture may be before only a part is made."""


@dataclass(frozen=True, slots=True)
class ClipPreprocess:
    """Resize and crop as a model's files say.

    Picklable, and needs Pillow alone. Its result is part of the model's identity: whoever
    changes a pixel of it also changes ``version``.
    """

    spec: ImageSpec
    reduced_decoding: bool = True

    @property
    def version(self) -> str:
        """The part of a fingerprint that says which pixels this makes."""
        return "clip-1-reduced" if self.reduced_decoding else "clip-1"

    def __call__(self, image: Image.Image) -> PixelArray:
        """Return uint8 RGB pixels, shape (height, width, 3), of a picture of any size."""
        if image.mode != "RGB":
            image = image.convert("RGB")
        return np.asarray(self._fit(image), dtype=np.uint8)

    def enough_size(self, width: int, height: int) -> tuple[int, int] | None:
        """Return the least width and height that a picture of this size may be decoded at.

        The file is one that can be decoded at a half, a quarter or an eighth of its edges. As
        small a one of them is enough as is still twice what it is resized to, so that the
        filter averages two pixels and more into one, and is resized to the same size as the
        whole picture. None, if that is none of them, or reduced decoding is off.
        """
        if not self.reduced_decoding:
            return None
        for divisor in _DIVISORS:
            # Whether the picture will be turned is not known here, so both ways must be right.
            if self._is_enough(width, height, divisor) and self._is_enough(height, width, divisor):
                return width // divisor, height // divisor
        return None

    def _is_enough(self, width: int, height: int, divisor: int) -> bool:
        reduced = (math.ceil(width / divisor), math.ceil(height / divisor))
        size = self._resized_size(width, height)
        # A decoder rounds edges up, which can change the proportions by so much that the long
        # edge gains or loses a pixel; the crop then moves, which costs more than the decoding.
        return self._resized_size(*reduced) == size and all(
            edge >= _REDUCED_MARGIN * resized for edge, resized in zip(reduced, size, strict=True)
        )

    def _fit(self, image: Image.Image) -> Image.Image:
        spec = self.spec
        filter_ = Image.Resampling[spec.interpolation.upper()]
        size = self._resized_size(*image.size)
        if spec.resize == "squash":
            return image.resize(size, filter_)
        if spec.resize == "longest":
            canvas = Image.new(
                "RGB",
                (spec.width, spec.height),
                spec.fill if isinstance(spec.fill, tuple) else (spec.fill,) * 3,
            )
            left, top = ((room - edge) // 2 for room, edge in zip(canvas.size, size, strict=True))
            canvas.paste(image.resize(size, filter_), (left, top))
            return canvas
        left, top = self._crop_start(size[0] - spec.width), self._crop_start(size[1] - spec.height)
        crop = (left, top, left + spec.width, top + spec.height)
        if size[0] > _LONGEST_STRIP * spec.width or size[1] > _LONGEST_STRIP * spec.height:
            # A line of 1 x 50,000 pixels would be scaled to 11 million lines: only the part
            # that is kept is made. Rounding may differ by one in 255 from the whole.
            x_scale, y_scale = image.width / size[0], image.height / size[1]
            box = (crop[0] * x_scale, crop[1] * y_scale, crop[2] * x_scale, crop[3] * y_scale)
            return image.resize((spec.width, spec.height), filter_, box=box)
        return image.resize(size, filter_).crop(crop)

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that a picture of this size is scaled to."""
        spec = self.spec
        if spec.resize == "squash":
            return spec.width, spec.height
        if spec.resize == "shortest" and spec.height == spec.width:
            # The long edge is cut to a whole number, as torchvision and transformers do.
            edge = spec.width
            if width <= height:
                return edge, int(edge * height / width)
            return int(edge * width / height), edge
        # What follows is OpenCLIP's ResizeKeepRatio, whose rounding is another one.
        ratios = (width / spec.width, height / spec.height)
        ratio = min(ratios) if spec.resize == "shortest" else max(ratios)
        # At least one pixel stays of the short edge of a picture such as 1 x 5000.
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def _crop_start(self, spare: int) -> int:
        return spare // 2 if self.spec.crop_rounding == "down" else round(spare / 2)
