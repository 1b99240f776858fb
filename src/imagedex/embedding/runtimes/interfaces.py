"""What a loaded model graph is to the encoders, whichever runtime runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Part = Literal["image", "text"]
"""Which half of a model a graph is."""


PIXELS: Final = "pixels"
"""The name by which every runner with a pixel input is fed it."""


class Precision(StrEnum):
    """In which numbers a graph is computed. Its inputs and outputs stay as they are."""

    FP32 = "fp32"
    BF16 = "bf16"  # The float32 graph, computed in bfloat16 by CPUs that can.
    INT8 = "int8"  # A graph of its own, whose weights are 8-bit integers.


class Runtime(StrEnum):
    """What runs a graph."""

    AUTO = "auto"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True)
class PixelInput:
    """An image graph's input, and how uint8 pixels become it.

    A graph that takes float32 of shape (n, 3, height, width) is given
    (pixels / 255 - mean) / std. One that takes uint8 of shape (n, height, width, 3) has that
    step inside, so it is given the pixels.
    """

    name: str  # In the graph; a runner is fed it as PIXELS.
    mean: tuple[float, float, float]  # Red, green, blue, of pixels from 0 to 1.
    std: tuple[float, float, float]
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class GraphInput:
    """One input of a graph."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]  # None for an axis that may differ from call to call.


@dataclass(frozen=True, slots=True)
class GraphOutput:
    """One output of a graph."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]  # None for an axis that depends on the inputs.


@dataclass(frozen=True, slots=True)
class GraphInfo:
    """What goes into a graph and what comes out, in the file's order."""

    inputs: tuple[GraphInput, ...]
    outputs: tuple[GraphOutput, ...]
    weight_files: tuple[Path, ...] = ()  # Where weights lie that are not in its own file.


class GraphRunner(Protocol):
    """A loaded graph. Safe to call from several threads; its cores are shared among them."""

    @property
    def runtime(self) -> Runtime:
        """What runs it; never AUTO."""
        ...

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the chosen output for these inputs; the array is the caller's own.

        Inputs go by their names in the graph, but for the one that was declared as pixels: it
        is fed as PIXELS, uint8 of shape (n, height, width, 3) with any n >= 1, whatever batch
        the graph was exported for. Raises ModelError when the graph cannot use the inputs.
        """
        ...
