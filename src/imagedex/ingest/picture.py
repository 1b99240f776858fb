"""Bytes of an image file in, an upright RGB picture out.

This runs in decoder processes only: it meets hostile bytes, and it changes Pillow's global
settings for the whole process.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import pillow_heif
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from imagedex.core.images import FailureReason
from imagedex.ingest.colour import to_rgb
from imagedex.ingest.signatures import breaks_off, has_signature
from imagedex.ingest.unusable import UnusableImage

# Imported above, since Pillow would otherwise look for plugins while it has the first file.
_PLUGINS: Final = (
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
    GifImagePlugin,
    TiffImagePlugin,
    BmpImagePlugin,
    AvifImagePlugin,
)

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF")
"""What Pillow may try. Its other formats (EPS runs Ghostscript) stay out of reach."""

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each value of the orientation tag. Source: Exif 2.32, tag 0x0112."""


_SWAPS_EDGES: Final = range(5, 9)
"""The values of the orientation tag that lay a picture on its side."""

EnoughSize = Callable[[int, int], tuple[int, int] | None]
"""As ``SupportsReducedDecoding.enough_size``; what it raises has to be an UnusableImage."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture."""

    image: Image.Image  # Mode RGB, upright, transparency composed on white.
    format: str  # Pillow's name of the file's format.
    width: int  # Pixels that the file holds, upright. The image has fewer when it was reduced.
    height: int


def decode_picture(
    data: bytes, *, max_pixels: int, enough_size: EnoughSize | None = None
) -> Picture:
    """Decode the first frame of an image file.

    The pixel count is read from the header and held against the limit before any pixel is
    decoded. With ``enough_size`` a JPEG may be decoded at a half, a quarter or an eighth of its
    edges, the least of these that is still as large as it says. Raises UnusableImage (empty,
    truncated, not_an_image, damaged, too_many_pixels); MemoryError passes through.
    """
    _prepare_pillow()
    if not data:
        raise UnusableImage(FailureReason.EMPTY, "The file has no bytes.")
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata, which does not matter to the picture.
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=FORMATS) as opened:
                _require_pixels(opened, max_pixels)
                full_size = _reduce(opened, enough_size)
                opened.load()
                # After loading: PNG can carry its Exif behind the pixels, and for TIFF Pillow
                # has turned the picture by now.
                orientation = _orientation(opened)
                image = _upright(to_rgb(opened), orientation)
                width, height = full_size or image.size
                if full_size and orientation in _SWAPS_EDGES:
                    width, height = height, width
                return Picture(image, opened.format or "", width, height)
    except (MemoryError, UnusableImage):
        raise
    except Exception as error:
        # Pillow's plugins raise whatever their parsers trip over: SyntaxError, struct.error,
        # KeyError, ZeroDivisionError … Each of them means that this file is no good.
        raise _verdict(data, error) from error


@functools.cache
def _prepare_pillow() -> None:
    # Our own limit counts, and it fails one image with a reason instead of warning.
    Image.MAX_IMAGE_PIXELS = None
    # The decoder processes share the cores among them already.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    pillow_heif.register_heif_opener(
        decode_threads=1, thumbnails=False, depth_images=False, aux_images=False
    )


def _require_pixels(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise UnusableImage(
            FailureReason.TOO_MANY_PIXELS,
            f"The picture has {width} x {height} pixels; the limit is {max_pixels} in all "
            "(IMAGEDEX_DECODING__MAX_PIXELS).",
        )


def _reduce(image: Image.Image, enough_size: EnoughSize | None) -> tuple[int, int] | None:
    """Have a JPEG decoded smaller where that is enough; return its full size if so.

    The decoder then makes fewer pixels out of each block of 8 x 8 (libjpeg.txt, "scale_num"),
    which is an average of the pixels in the file. All of the file is read as before, so what
    is broken about it is found. MPO is left alone, since Pillow does not promise it for that.
    """
    if enough_size is None or image.format != "JPEG":
        return None
    full_size = image.size
    enough = enough_size(*full_size)
    if enough is None:
        return None
    image.draft(None, (max(1, enough[0]), max(1, enough[1])))
    return None if image.size == full_size else full_size


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Damaged metadata must not cost a sound picture.
        return 1
    return orientation if isinstance(orientation, int) else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _verdict(data: bytes, error: Exception) -> UnusableImage:
    if not has_signature(data):
        return UnusableImage(
            FailureReason.NOT_AN_IMAGE, "The file does not begin like any supported image format."
        )
    text = str(error)
    if breaks_off(data) or "truncated" in text.lower():
        return UnusableImage(
            FailureReason.TRUNCATED, "The file begins as an image and breaks off before its end."
        )
    if isinstance(error, UnidentifiedImageError):
        text = "its header makes no sense"  # Pillow's text names an object's address.
    return UnusableImage(
        FailureReason.DAMAGED, f"The image cannot be decoded: {text or type(error).__name__}."
    )
