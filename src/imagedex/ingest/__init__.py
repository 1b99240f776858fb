"""Image roots, scanning, and decoding in processes that may die."""

from __future__ import annotations

from imagedex.ingest.decoder import ProcessImageDecoder
from imagedex.ingest.ignoring import IgnoreRules
from imagedex.ingest.interfaces import (
    DecodedImage,
    DecodeLimits,
    ImageDecoder,
    KnownImage,
    ScannedFile,
    SparingDecoder,
)
from imagedex.ingest.opening import stamp_now, stamp_of
from imagedex.ingest.roots import ImageRoots
from imagedex.ingest.scan import has_image_name, require_directory, scan
from imagedex.ingest.thumbnail import MAX_THUMBNAIL_PIXELS, Thumbnailer

__all__ = [
    "MAX_THUMBNAIL_PIXELS",
    "DecodeLimits",
    "DecodedImage",
    "IgnoreRules",
    "ImageDecoder",
    "ImageRoots",
    "KnownImage",
    "ProcessImageDecoder",
    "ScannedFile",
    "SparingDecoder",
    "Thumbnailer",
    "has_image_name",
    "require_directory",
    "scan",
    "stamp_now",
    "stamp_of",
]
