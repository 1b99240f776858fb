"""Every mode that Pillow gives, made RGB: the right way round, not clipped, on white."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

_WHITE = (255, 255, 255)

_TINY = 1e-30
"""Keeps a picture of one single value from being divided by zero."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a loaded image in mode RGB.

    What is transparent shows white. CMYK is converted without its ICC profile (Adobe's
    inverted CMYK in JPEG has been put right by Pillow). Grey of more than 8 bits keeps its
    range: 16-bit values are divided by 257; wider and floating ones, which have no fixed
    white, are read by the range that their values lie in (see ``_to_bytes``).
    """
    if image.mode.startswith("I;16"):
        return _deep_grey(image, full_range=True)
    if image.mode in ("I", "F"):
        # PNG has no integers wider than 16 bits; Pillow before 11.3 read those as "I".
        return _deep_grey(image, full_range=image.format == "PNG")
    if image.has_transparency_data or image.mode == "RGBa":
        return _on_white(image)
    if image.mode == "LAB":
        profile = ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(
            image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        return converted if converted is not None else image
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return rgba.convert("RGB")
    canvas = Image.new("RGB", rgba.size, _WHITE)
    canvas.paste(rgba, mask=alpha)
    return canvas


def _deep_grey(image: Image.Image, *, full_range: bool) -> Image.Image:
    values = np.asarray(image)
    grey = _to_bytes(values, 65535.0) if full_range else _to_bytes(values, _white_of(values))
    if _is_white_zero(image):
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # PNG: the one grey value that is transparent.
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _white_of(values: NDArray[np.generic]) -> float | None:
    """Return which value means white: the least usual one that holds them all, or None."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 1.0
    least, most = float(finite.min()), float(finite.max())
    usual = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    return next((white for white in usual if least >= 0 and most <= white), None)


def _to_bytes(values: NDArray[np.generic], white: float | None) -> NDArray[np.uint8]:
    """Scale values to 0..255, from 0..white, or from their own range when white is None."""
    scaled = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=np.inf, neginf=-np.inf)
    black = 0.0
    if white is None:
        finite = scaled[np.isfinite(scaled)]
        black, white = float(finite.min()), float(finite.max())
    scaled -= black
    scaled *= 255.0 / max(white - black, _TINY)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _is_white_zero(image: Image.Image) -> bool:
    """Say whether a TIFF counts from white, which Pillow undoes for up to 8 bits only."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
