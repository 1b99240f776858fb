"""Image files to test with: sound ones of each format, and everything that can be wrong."""

from __future__ import annotations

import os
import socket
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

from imagedex.core.images import FailureReason

pillow_heif.register_heif_opener()

FORMATS: Mapping[str, str] = {
    "jpg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "gif": "GIF",
    "tif": "TIFF",
    "bmp": "BMP",
    "heic": "HEIF",
    "avif": "AVIF",
}
"""File name extension and Pillow's name of each format."""

QUADRANTS = ((230, 20, 20), (20, 200, 20), (20, 20, 220), (240, 230, 30))
"""Colours of :func:`quadrants`: top left, top right, bottom left, bottom right."""


def quadrants(width: int = 64, height: int = 48) -> Image.Image:
    """Return an RGB picture of four colours, so that each turn and flip of it is another."""
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    top, left = height // 2, width // 2
    pixels[:top, :left], pixels[:top, left:] = QUADRANTS[0], QUADRANTS[1]
    pixels[top:, :left], pixels[top:, left:] = QUADRANTS[2], QUADRANTS[3]
    return Image.fromarray(pixels)


def noise(width: int = 64, height: int = 48, *, seed: int = 0) -> Image.Image:
    """Return an RGB picture that compresses badly and differs for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encode(image: Image.Image, format_name: str, **options: object) -> bytes:
    """Return the bytes of an image file; lossy formats at a high quality."""
    if format_name in ("JPEG", "WEBP", "HEIF", "AVIF"):
        options.setdefault("quality", 95)
    if format_name == "JPEG" and image.mode in ("RGB", "YCbCr"):
        options.setdefault("subsampling", 0)
    file = BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def png_bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """Return a small PNG whose header promises a huge one-bit picture."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1024))
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, body) for kind, body in chunks)


def damaged_png() -> bytes:
    """Return a PNG, whole from end to end, whose compressed pixels are nonsense."""
    header = struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", bytes(range(256)) * 4), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, body) for kind, body in chunks)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@dataclass(frozen=True, slots=True)
class HostileFile:
    """A file that must fail, in one way, when it is decoded."""

    name: str
    reason: FailureReason
    write: Callable[[Path], object]  # Makes it at this path.
    is_found_by_scan: bool = True  # As a file; otherwise a scan fails it, or passes it over.


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        # Relative, since the path of a socket may have 107 bytes at most.
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)


HOSTILE_FILES = (
    HostileFile("empty.jpg", FailureReason.EMPTY, lambda path: path.write_bytes(b"")),
    HostileFile(
        "half.jpg",
        FailureReason.TRUNCATED,
        lambda path: path.write_bytes(encode(noise(), "JPEG")[:1500]),
    ),
    HostileFile(
        "half.png",
        FailureReason.TRUNCATED,
        lambda path: path.write_bytes(encode(noise(), "PNG")[:1500]),
    ),
    HostileFile(
        "letter.png",
        FailureReason.NOT_AN_IMAGE,
        lambda path: path.write_text("Dear Sir or Madam,\nthis is no picture.\n"),
    ),
    HostileFile(
        "script.jpg",
        FailureReason.NOT_AN_IMAGE,
        lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
    ),
    HostileFile("damaged.png", FailureReason.DAMAGED, lambda path: path.write_bytes(damaged_png())),
    HostileFile(
        "bomb.png", FailureReason.TOO_MANY_PIXELS, lambda path: path.write_bytes(png_bomb())
    ),
    HostileFile("folder.jpg", FailureReason.NOT_A_FILE, Path.mkdir, is_found_by_scan=False),
    HostileFile("fifo.jpg", FailureReason.NOT_A_FILE, os.mkfifo, is_found_by_scan=False),
    HostileFile("socket.jpg", FailureReason.NOT_A_FILE, _socket, is_found_by_scan=False),
    HostileFile(
        "device.jpg",
        FailureReason.NOT_A_FILE,
        lambda path: path.symlink_to("/dev/zero"),
        is_found_by_scan=False,
    ),
    HostileFile(
        "escape.jpg",
        FailureReason.OUTSIDE_ROOTS,
        lambda path: path.symlink_to("/etc/passwd"),
        is_found_by_scan=False,
    ),
    HostileFile(
        "dangling.jpg",
        FailureReason.VANISHED,
        lambda path: path.symlink_to(path.with_name("nothing-here.jpg")),
        is_found_by_scan=False,
    ),
    HostileFile(
        "loop.jpg",
        FailureReason.UNREADABLE,
        lambda path: path.symlink_to(path),
        is_found_by_scan=False,
    ),
)
"""One of everything that can be wrong with a file, for decoders with the default limits."""


def write_hostile_files(directory: Path) -> dict[str, HostileFile]:
    """Write all of HOSTILE_FILES into a directory; return them by the path they got."""
    written = {}
    for file in HOSTILE_FILES:
        path = directory / file.name
        file.write(path)
        written[str(path)] = file
    return written
