"""Small pictures for pages."""

# Image paths are strings here, as scandir and the kernel give them.
# ruff: noqa: PTH116

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from imagedex.core.errors import InvalidRequest, NotFound
from imagedex.core.images import FileStamp, ImageFailure
from imagedex.embedding.interfaces import PixelArray
from imagedex.ingest.decoder import ProcessImageDecoder
from imagedex.ingest.interfaces import DecodedImage, DecodeLimits
from imagedex.ingest.opening import stamp_of
from imagedex.ingest.roots import ImageRoots

MAX_THUMBNAIL_PIXELS = 1024
"""Longest side of the largest thumbnail."""

_JPEG_QUALITY = 82


@dataclass(frozen=True, slots=True)
class ShrinkToFit:
    """Preprocess: the whole picture, at most ``size`` pixels a side, shape (height, width, 3)."""

    size: int

    def __call__(self, image: Image.Image) -> PixelArray:
        """Return the shrunken picture; a smaller one stays as it is."""
        image.thumbnail((self.size, self.size), Image.Resampling.BICUBIC, reducing_gap=2.0)
        return np.asarray(image)


def encode_jpeg(pixels: PixelArray, *, size: int) -> bytes:
    """Return a JPEG, at most ``size`` pixels a side, of RGB pixels of shape (height, width, 3)."""
    image = Image.fromarray(pixels)
    image.thumbnail((size, size), Image.Resampling.BICUBIC)
    file = BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


class Thumbnailer:
    """Makes thumbnails in a decoder process of its own, which starts with the first one.

    Safe to call from several threads; one picture is decoded at a time. What was made is kept
    in memory up to ``cache_bytes``, those used least recently going first, and is made anew
    when the file has changed.
    """

    def __init__(
        self,
        *,
        roots: ImageRoots,
        limits: DecodeLimits | None = None,
        cache_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self._decoder = ProcessImageDecoder(
            roots=roots,
            preprocess=ShrinkToFit(MAX_THUMBNAIL_PIXELS),
            limits=limits,
            look_ahead=1,
        )
        self._decoding = threading.Lock()
        self._cache = JpegCache(cache_bytes)

    def jpeg(self, image_path: str, size: int) -> bytes:
        """Return a JPEG of the image, upright, at most ``size`` pixels a side.

        Raises NotFound, with the reason, when the image cannot be shown; InvalidRequest for a
        size below 1 or above MAX_THUMBNAIL_PIXELS; EngineError when no process can be started.
        """
        if not 1 <= size <= MAX_THUMBNAIL_PIXELS:
            raise InvalidRequest(
                f"A thumbnail of {size} pixels cannot be made; ask for 1 to {MAX_THUMBNAIL_PIXELS}."
            )
        jpeg = self._cached(image_path, size)
        if jpeg is not None:
            return jpeg
        with self._decoding:
            # Another thread may have made it while this one waited.
            jpeg = self._cached(image_path, size)
            if jpeg is not None:
                return jpeg
            image = self._decode(image_path)
        jpeg = encode_jpeg(image.pixels, size=size)
        self._cache.put((image_path, image.facts.stamp, size), jpeg)
        return jpeg

    def close(self) -> None:
        """End the decoder process. Calling it again does nothing."""
        self._decoder.close()

    def _cached(self, image_path: str, size: int) -> bytes | None:
        try:
            status = os.stat(image_path)
        except (OSError, ValueError) as error:
            raise NotFound(f"{image_path!r} cannot be shown: it is not there.") from error
        return self._cache.get((image_path, stamp_of(status), size))

    def _decode(self, image_path: str) -> DecodedImage:
        outcome = next(self._decoder.decode([image_path]))
        if isinstance(outcome, ImageFailure):
            raise NotFound(f"{image_path!r} cannot be shown: {outcome.detail}")
        return outcome


_Key = tuple[str, FileStamp, int]


class JpegCache:
    """The JPEGs used last, bounded by their bytes. Safe to use from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._jpegs: OrderedDict[_Key, bytes] = OrderedDict()

    def get(self, key: _Key) -> bytes | None:
        with self._lock:
            jpeg = self._jpegs.get(key)
            if jpeg is not None:
                self._jpegs.move_to_end(key)
            return jpeg

    def put(self, key: _Key, jpeg: bytes) -> None:
        with self._lock:
            self._bytes += len(jpeg) - len(self._jpegs.pop(key, b""))
            self._jpegs[key] = jpeg
            while self._bytes > self._max_bytes:
                _, oldest = self._jpegs.popitem(last=False)
                self._bytes -= len(oldest)
