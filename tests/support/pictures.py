"""Folders of real image files to index."""

from __future__ import annotations

import random
from collections.abc import Iterator
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
    """Make ``count`` JPEGs of 12 megapixels and 3 to 4 MB, as a camera's, under different names.

    Only ``distinct`` of them differ; the others are further links to the same files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(seed)
    paths: list[Path] = []
    for number in range(count):
        path = folder / f"photo-{number:05d}.jpg"
        if number < distinct:
            coarse = Image.fromarray(chance.integers(0, 256, (30, 40, 3), dtype=np.uint8))
            picture = np.asarray(coarse.resize((4000, 3000), Image.Resampling.BICUBIC))
            grain = chance.integers(-12, 13, (3000, 4000, 1), dtype=np.int16)
            grained = np.clip(picture + grain, 0, 255).astype(np.uint8)
            Image.fromarray(grained).save(path, quality=85)
        else:
            path.hardlink_to(paths[number % distinct])
        paths.append(path)
    return paths


def _repeat(names: list[Path]) -> Iterator[Path]:
    while True:
        yield from names
