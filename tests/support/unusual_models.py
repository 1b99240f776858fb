"""Models that are slow, or that end the worker which embeds certain pictures."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imagedex.embedding import ImageEncoder, PixelArray, VectorArray
from imagedex.engine._dispatch import WorkerDied
from imagedex.testing.colour_model import ColourEncoder, ColourModel

ENCODED: list[int] = []
"""The sizes of the batches that slow models have encoded in this process."""

_RED = np.array((255, 0, 0))


@dataclass(frozen=True, slots=True)
class DeadlyModel(ColourModel):
    """The colour model; the worker that has a red picture dies, or plays its death."""

    by: str = "playing"  # "signal": it dies of SIGKILL.

    def load_image_encoder(self, *, threads: int) -> ImageEncoder:
        """Return the deadly image half."""
        return _DeadlyEncoder(self.by)


@dataclass(frozen=True, slots=True)
class SlowModel(ColourModel):
    """The colour model, which sleeps for each picture, and for each batch.

    With a ``log`` each batch adds a line to it: when it began and ended, by the monotonic clock,
    and how many pictures it had.
    """

    seconds_per_image: float = 0.01
    seconds_per_batch: float = 0.0
    log: Path | None = None

    def load_image_encoder(self, *, threads: int) -> ImageEncoder:
        """Return the slow image half."""
        return _SlowEncoder(self)


class _DeadlyEncoder(ColourEncoder):
    def __init__(self, by: str) -> None:
        self._by = by

    def encode_images(self, pixels: PixelArray) -> VectorArray:
        if (pixels[:, -1, -1] == _RED).all(axis=1).any():
            if self._by == "playing":
                raise WorkerDied("The test wants it.")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_images(pixels)


class _SlowEncoder(ColourEncoder):
    def __init__(self, model: SlowModel) -> None:
        self._model = model

    def encode_images(self, pixels: PixelArray) -> VectorArray:
        began_at = time.monotonic()
        time.sleep(self._model.seconds_per_batch + self._model.seconds_per_image * len(pixels))
        ENCODED.append(len(pixels))
        vectors = super().encode_images(pixels)
        if self._model.log is not None:
            with self._model.log.open("a") as log:  # One short write, whole among others.
                log.write(f"{began_at} {time.monotonic()} {len(pixels)}\n")
        return vectors
