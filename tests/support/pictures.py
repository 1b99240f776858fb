"""Folders of real image files to index."""

from __future__ import annotations

import random
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "grey", "brown", "pink")


def draw_pictures(folder: Path, count: int, *, seed: int = 0) -> list[Path]:
    """Draw ``count`` different pictures as JPEG and PNG files; return their paths, sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    paths = []
    for number in range(count):
        picture = Image.new("RGB", (160 + draw.randrange(80), 120 + draw.randrange(80)), "white")
        pen = ImageDraw.Draw(picture)
        for _ in range(1 + draw.randrange(5)):
            x, y = draw.randrange(120), draw.randrange(90)
            box = (x, y, x + 10 + draw.randrange(80), y + 10 + draw.randrange(60))
            shape = draw.choice((pen.ellipse, pen.rectangle))
            shape(box, fill=draw.choice(COLOURS))
        path = folder / f"picture-{number:05d}.{'jpg' if number % 2 else 'png'}"
        picture.save(path)
        paths.append(path)
    return sorted(paths)


def vary_pictures(sources: Path, folder: Path, count: int, *, seed: int = 0) -> list[Path]:
    """Make ``count`` pictures from those below ``sources`` by crops and flips, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    names = sorted(path for path in sources.rglob("*") if path.suffix in (".png", ".jpg"))
    paths = []
    for number, source in zip(range(count), _repeat(names), strict=False):
        with Image.open(source) as opened:
            picture = opened.convert("RGBA")
        width, height = picture.size
        left, top = draw.randrange(1 + width // 8), draw.randrange(1 + height // 8)
        right = width - draw.randrange(1 + width // 8)
        bottom = height - draw.randrange(1 + height // 8)
        picture = picture.crop((left, top, right, bottom))
        if draw.random() < 0.5:
            picture = ImageOps.mirror(picture)
        path = folder / f"{number:05d}-{source.stem}.png"
        picture.save(path, compress_level=1)
        paths.append(path)
    return paths


def draw_photos(folder: Path, count: int, *, distinct: int = 12, seed: int = 0) -> list[Path]:
    """Make ``count`` JPEGs of 12 megapixels and 3 to 4 MB, as a camera's, all different files.

    Only ``distinct`` pictures are shown; a comment in each file says which one it is, so that
    none is taken for a copy of another, whose vector is known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    pictures: list[bytes] = []
    paths: list[Path] = []
    for number in range(count):
        if number < distinct:
            coarse = Image.fromarray(chance.integers(0, 256, (30, 40, 3), dtype=np.uint8))
            picture = np.asarray(coarse.resize((4000, 3000), Image.Resampling.BICUBIC))
            grain = chance.integers(-12, 13, (3000, 4000, 1), dtype=np.int16)
            grained = np.clip(picture + grain, 0, 255).astype(np.uint8)
            encoded = BytesIO()
            Image.fromarray(grained).save(encoded, "JPEG", quality=85)
            pictures.append(encoded.getvalue())
        path = folder / f"photo-{number:05d}.jpg"
        path.write_bytes(_with_comment(pictures[number % distinct], path.name))
        paths.append(path)
    return paths


def _with_comment(jpeg: bytes, comment: str) -> bytes:
    """Return a JPEG with a comment segment (COM, ITU-T T.81 B.2.4.5) after its first marker."""
    text = comment.encode()
    return jpeg[:2] + b"\xff\xfe" + (2 + len(text)).to_bytes(2, "big") + text + jpeg[2:]


def _repeat(names: list[Path]) -> Iterator[Path]:
    while True:
        yield from names
