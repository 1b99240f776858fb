"""Thumbnails, as far as no process is needed."""

from __future__ import annotations

import pickle
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from imagedex.core.images import FileStamp
from imagedex.ingest.thumbnail import JpegCache, ShrinkToFit, encode_jpeg
from imagedex.testing.hostile_images import quadrants

STAMP = FileStamp(1, 1)


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [
        (640, 480, (24, 32, 3)),
        (480, 640, (32, 24, 3)),
        (20, 10, (10, 20, 3)),
        (5000, 1, (1, 32, 3)),
    ],
)
def test_a_picture_shrinks_to_fit_and_never_grows(
    width: int, height: int, shape: tuple[int, ...]
) -> None:
    step = pickle.loads(pickle.dumps(ShrinkToFit(32)))
    pixels = step(quadrants(width, height))
    assert pixels.shape == shape
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize(("size", "expected"), [(16, (16, 12)), (64, (64, 48)), (500, (64, 48))])
def test_a_jpeg_has_at_most_the_size_asked_for(size: int, expected: tuple[int, int]) -> None:
    image = Image.open(BytesIO(encode_jpeg(np.asarray(quadrants(64, 48)), size=size)))
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", expected)


def test_the_cache_keeps_what_was_used_last() -> None:
    cache = JpegCache(max_bytes=30)
    for name in "abc":
        cache.put((name, STAMP, 1), bytes(10))
    assert cache.get(("a", STAMP, 1)) == bytes(10)
    cache.put(("d", STAMP, 1), bytes(10))
    assert cache.get(("b", STAMP, 1)) is None
    assert cache.get(("a", STAMP, 1)) is not None
    assert cache.get(("a", FileStamp(1, 2), 1)) is None
    assert cache.get(("a", STAMP, 2)) is None


def test_the_cache_counts_its_bytes_right() -> None:
    cache = JpegCache(max_bytes=30)
    cache.put(("a", STAMP, 1), bytes(25))
    cache.put(("a", STAMP, 1), bytes(5))
    cache.put(("b", STAMP, 1), bytes(25))
    assert cache.get(("a", STAMP, 1)) == bytes(5)
    cache.put(("big", STAMP, 1), bytes(31))
    assert [cache.get((name, STAMP, 1)) for name in ("a", "b", "big")] == [None] * 3
    cache.put(("a", STAMP, 1), bytes(30))
    assert cache.get(("a", STAMP, 1)) == bytes(30)
