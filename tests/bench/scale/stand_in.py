"""A model whose texts are numbers: text ``n`` has the n-th vector of a file, pictures any vector.

A server finds it as the model of another package, by an entry point.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagedex.embedding import EncodedTexts, ImageEncoder, PixelArray, TextEncoder

NAME = "stand-in"
_FILE = "BENCH_STAND_IN_VECTORS"


class LookedUpTexts:
    """The text half. Other texts than numbers have the first vector."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        """Look vectors up."""
        rows = [int(text) % len(self._vectors) if text.isdigit() else 0 for text in texts]
        return EncodedTexts(np.array(self._vectors[rows], dtype=np.float32), (False,) * len(texts))


class MadeUpPictures:
    """The image half: a vector that follows from the one pixel that is left of a picture."""

    def __init__(self, dim: int) -> None:
        self._dim = dim

    def encode_images(self, pixels: PixelArray) -> NDArray[np.float32]:
        """Draw vectors in all directions."""
        seeds = pixels.reshape(len(pixels), -1).tolist()
        vectors = [np.random.default_rng(seed).standard_normal(self._dim) for seed in seeds]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / lengths, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class StandIn:
    """The model; ``dim`` is that of the vectors which it looks up."""

    dim: int

    name = NAME
    fingerprint = NAME
    input_shape = (1, 1, 3)

    @staticmethod
    def preprocess(image: Image.Image) -> PixelArray:
        """Return one pixel."""
        return np.asarray(image.resize((1, 1)), dtype=np.uint8)

    def load_image_encoder(self, *, threads: int) -> ImageEncoder:
        """Return what makes vectors up."""
        return MadeUpPictures(self.dim)

    def load_text_encoder(self, *, threads: int) -> TextEncoder:
        """Return what looks vectors up in the file that the environment names."""
        return LookedUpTexts(np.load(os.environ[_FILE], mmap_mode="r"))


def from_environment() -> StandIn:
    """Return the model of the file that the environment names: what the entry point calls."""
    return StandIn(np.load(os.environ[_FILE], mmap_mode="r").shape[1])


def offer(folder: Path, vectors: Path) -> dict[str, str]:
    """Return the environment in which a process finds the model, and uses it."""
    package = folder / "bench_stand_in-1.0.dist-info"
    package.mkdir(parents=True, exist_ok=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-stand-in\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        f"[imagedex.embedding_models]\n{NAME} = bench.scale.stand_in:from_environment\n"
    )
    tests = Path(__file__).resolve().parents[2]
    paths = [str(folder), str(tests), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "IMAGEDEX_MODEL": NAME,
        _FILE: str(vectors),
    }
