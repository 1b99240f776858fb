"""Preprocessing steps to test with: a plain one, and one that sabotages its process."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
from PIL import Image

from imagedex.embedding.interfaces import PixelArray


@dataclass(frozen=True, slots=True)
class Square:
    """The whole picture, squeezed to ``size`` x ``size``: uint8 of shape (size, size, 3)."""

    size: int = 224

    def __call__(self, image: Image.Image) -> PixelArray:
        """Return the pixels."""
        return np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR))


class Unchanged:
    """All pixels as they are, of shape (height, width, 3)."""

    def __call__(self, image: Image.Image) -> PixelArray:
        """Return the pixels."""
        return np.asarray(image)


class Sabotage(IntEnum):
    """What :class:`Saboteur` does, by the width of the picture in pixels."""

    HANG = 101
    ABORT = 103
    KILL = 107
    EXIT = 109
    RAISE = 113
    EXHAUST_MEMORY = 127
    TALK_GARBAGE = 131
    RETURN_FLOATS = 137


@dataclass(frozen=True, slots=True)
class ReducedUnchanged:
    """As :class:`Unchanged`, of a picture that may be decoded at ``least`` pixels a side.

    It cannot say so of a picture of one pixel, and raises.
    """

    least: int

    def enough_size(self, width: int, height: int) -> tuple[int, int] | None:
        """Return the least size."""
        if width * height == 1:
            raise ZeroDivisionError("one pixel cannot be divided")
        return self.least, self.least

    def __call__(self, image: Image.Image) -> PixelArray:
        """Return the pixels."""
        return np.asarray(image)


@dataclass(frozen=True, slots=True)
class Saboteur:
    """As :class:`Square`, but a picture of a certain width brings its decoder process down.

    It appends the act's name and the process id to ``log`` before it acts, so
    that a test can wait for the moment.
    """

    log: Path
    size: int = 32

    def __call__(self, image: Image.Image) -> PixelArray:
        """Return the pixels, or do what the picture's width says."""
        act = next((act for act in Sabotage if act.value == image.width), None)
        if act is not None:
            with self.log.open("a") as file:
                file.write(f"{act.name} {os.getpid()}\n")
            self._do(act)
            if act is Sabotage.RETURN_FLOATS:
                return np.zeros((2, 2))  # type: ignore[return-value]  # The contract is broken on purpose.
        return Square(self.size)(image)

    def _do(self, act: Sabotage) -> None:
        match act:
            case Sabotage.HANG:
                time.sleep(3600)
            case Sabotage.ABORT:
                os.abort()
            case Sabotage.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case Sabotage.EXIT:
                sys.exit(3)
            case Sabotage.RAISE:
                raise ZeroDivisionError("this step cannot divide")
            case Sabotage.EXHAUST_MEMORY:
                hoard = [bytes(64 * 1024 * 1024) for _ in range(1024)]
                raise AssertionError(f"there is no limit: {len(hoard)}")
            case Sabotage.TALK_GARBAGE:
                os.write(int(sys.argv[1]), b"This is what a C library prints.\n" * 1000)
            case Sabotage.RETURN_FLOATS:
                pass


@dataclass(frozen=True, slots=True)
class Unloadable:
    """Can be pickled, but not loaded again."""

    message: str = "weights are missing"

    def __setstate__(self, state: object) -> None:
        """Raise, as a step does whose files are not where it looks for them."""
        raise FileNotFoundError("weights are missing")

    def __getstate__(self) -> object:
        """Return something, so that loading calls ``__setstate__``."""
        return {"message": self.message}

    def __call__(self, image: Image.Image) -> PixelArray:
        """Return the pixels."""
        return np.asarray(image)
