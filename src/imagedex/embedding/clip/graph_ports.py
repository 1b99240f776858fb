"""Which inputs and outputs of a model's graphs carry pixels, token ids and vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from imagedex.core.errors import ModelError
from imagedex.embedding.runtimes import GraphInfo, GraphInput, GraphOutput

_MASK = "attention_mask"
_REMEDY = "Take a graph of one of the two layouts, or export the model anew."


@dataclass(frozen=True, slots=True)
class ImagePorts:
    """Where pixels go into an image graph and vectors come out."""

    pixels: str
    height: int | None  # None where the graph takes any.
    width: int | None
    output: str
    dim: int | None


@dataclass(frozen=True, slots=True)
class TextPorts:
    """Where token ids go into a text graph and vectors come out."""

    ids: str
    dtype: Literal["int32", "int64"]
    mask: str | None
    length: int | None
    batch: int | None
    output: str
    dim: int | None


def image_ports(graph: Path, info: GraphInfo, outputs: Sequence[str]) -> ImagePorts:
    """Return the ports of an image graph. Raises ModelError for a graph of another kind."""
    output, dim = _vector_output(graph, info, outputs)
    if len(info.inputs) == 1 and len(info.inputs[0].shape) == 4:
        pixels = info.inputs[0]
        if pixels.dtype == np.uint8:  # Newer exports normalise inside the graph.
            _, height, width, channels = pixels.shape
        else:
            _, channels, height, width = pixels.shape
        if pixels.dtype in (np.uint8, np.float32) and channels in (3, None):
            return ImagePorts(pixels.name, height, width, output, dim)
    raise ModelError(
        f"The image graph {str(graph)!r} takes {_described(info.inputs)}; expected is one input of "
        f"pixels, float32 (batch, 3, height, width) or uint8 (batch, height, width, 3). {_REMEDY}"
    )


def text_ports(graph: Path, info: GraphInfo, outputs: Sequence[str]) -> TextPorts:
    """Return the ports of a text graph. Raises ModelError for a graph of another kind."""
    output, dim = _vector_output(graph, info, outputs)
    ids = [port for port in info.inputs if port.name != _MASK]
    masks = [port for port in info.inputs if port.name == _MASK]
    dtypes = {str(np.dtype(port.dtype)) for port in info.inputs}
    if len(ids) == 1 and len(ids[0].shape) == 2 and len(dtypes) == 1:
        dtype = dtypes.pop()
        if dtype in ("int32", "int64"):
            batch, length = ids[0].shape
            return TextPorts(
                ids=ids[0].name,
                dtype="int32" if dtype == "int32" else "int64",
                mask=_MASK if masks else None,
                length=length,
                batch=batch,
                output=output,
                dim=dim,
            )
    raise ModelError(
        f"The text graph {str(graph)!r} takes {_described(info.inputs)}; expected are token ids, "
        f"int32 or int64 (batch, length), and at most an {_MASK} of the same type. {_REMEDY}"
    )


def _vector_output(graph: Path, info: GraphInfo, names: Sequence[str]) -> tuple[str, int | None]:
    """Return the name and length of the graph's vectors; a single output needs no known name."""
    named = {port.name: port for port in info.outputs}
    chosen = next((named[name] for name in names if name in named), None)
    if chosen is None and len(info.outputs) == 1:
        chosen = info.outputs[0]
    if chosen is None or len(chosen.shape) not in (0, 2):
        raise ModelError(
            f"The graph {str(graph)!r} gives {_described(info.outputs)}; expected is an output of "
            f"shape (batch, dim), named {' or '.join(names)} if there are several. {_REMEDY}"
        )
    return chosen.name, chosen.shape[1] if chosen.shape else None


def _described(ports: Sequence[GraphInput] | Sequence[GraphOutput]) -> str:
    return ", ".join(
        f"{port.name} {np.dtype(port.dtype)} "
        f"({', '.join('?' if edge is None else str(edge) for edge in port.shape)})"
        for port in ports
    )
