"""How a model wants its pictures made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from imagedex.core.errors import ModelError

INTERPOLATIONS: Final = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Names of Pillow's resampling filters, in small letters."""

RESIZES: Final = ("shortest", "squash", "longest")
CROP_ROUNDINGS: Final = ("nearest", "down")


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What a model's files say about preprocessing. Raises ModelError for what nobody can do.

    - ``shortest``: scale until the picture just covers ``height`` x ``width``, crop the middle;
    - ``longest``: scale until it just fits in, fill the rest;
    - ``squash``: scale both edges, whatever becomes of the proportions.
    """

    height: int  # Pixels of the result, which the graph takes.
    width: int
    mean: tuple[float, float, float]  # Red, green, blue, of pixels from 0 to 1.
    std: tuple[float, float, float]
    interpolation: str  # One of INTERPOLATIONS.
    resize: str  # One of RESIZES.
    # Where a crop begins that cannot be quite in the middle: at the ``nearest`` whole pixel, a
    # half rounded to even (torchvision, OpenCLIP), or ``down`` (transformers).
    crop_rounding: str = "nearest"
    fill: int | tuple[int, int, int] = 0  # Colour beside a ``longest`` picture; one number: grey.

    def __post_init__(self) -> None:
        """Refuse values that do not describe a preprocessing step."""
        for name, value, known in (
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("resize", self.resize, RESIZES),
            ("crop rounding", self.crop_rounding, CROP_ROUNDINGS),
        ):
            if value not in known:
                raise ModelError(
                    f"The model's preprocessing asks for {name} {value!r}; Imagedex knows "
                    f"{', '.join(known)}. Check the preprocessing file or take another model."
                )
        if self.height < 1 or self.width < 1:
            raise ModelError(
                f"The model's preprocessing makes pictures of {self.height} x {self.width} pixels; "
                "both must be at least 1. Check the preprocessing file."
            )
        if not all(value > 0 for value in self.std):
            raise ModelError(
                f"The model's preprocessing divides by std {self.std}; all three must be above 0. "
                "Check the preprocessing file."
            )
        # Straight from a file, so it can be anything that JSON can say.
        fill: object = self.fill
        colour = fill if isinstance(fill, tuple) else (fill, fill, fill)
        if len(colour) != 3 or not all(isinstance(one, int) and 0 <= one <= 255 for one in colour):
            raise ModelError(
                f"The model's preprocessing fills with colour {self.fill!r}; expected is a whole "
                "number from 0 to 255, or three. Check the preprocessing file."
            )
