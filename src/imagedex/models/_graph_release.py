"""A graph file in, a graph file with free axes out."""

from __future__ import annotations

from pathlib import Path

import onnx

from imagedex.embedding.runtimes._onnx_file import OnnxFile, read_onnx_file
from imagedex.models._onnx_axes import release_axes
from imagedex.models._onnx_shapes import Sizes, Untraceable
from imagedex.models._onnx_writing import write_onnx_file

# Primes, so that no size of a model looks like one of these; two each, so that what follows an
# axis that is free already is told from what is the model's own.
_BATCHES = (103, 101)
_LENGTHS = (67, 61)


class NotReleased(Exception):
    """The graph cannot be rewritten; the text says why."""


def release(graph: Path, output: Path, *, batch: bool, length: bool) -> None:
    """Write ``graph`` to ``output`` in the same directory, with these axes made free.

    An axis that is free already stays so. The weights are copied from file to file. Raises
    NotReleased, before anything is written, ModelError when the graph cannot be read, and
    OSError.
    """
    file = read_onnx_file(graph)
    shape = file.info.inputs[0].shape if file.info.inputs else ()
    if len(shape) not in (2, 4):
        raise NotReleased("its first input is neither text nor pictures")
    if shape[0] not in (None, 1):
        raise NotReleased(f"it was made for exactly {shape[0]} rows at once")
    batches = _sizes(shape[0], _BATCHES, is_freed=batch)
    lengths = _sizes(shape[1], _LENGTHS, is_freed=length and len(shape) == 2)
    before, after = (Sizes(*each) for each in zip(batches, lengths, strict=True))
    try:
        release_axes(file.graph, file.weights, before=before, after=after)
    except Untraceable as reason:
        raise NotReleased(str(reason)) from reason
    needed = {name for node in file.graph.graph.node for name in node.input}
    weights = [weight for weight in file.weights if weight.name in needed]
    write_onnx_file(output, file.graph, weights, source=graph)


def vocabulary_size(graph: Path) -> int:
    """Return how many tokens a text graph knows: the rows of the table that they are looked up in.

    0 when there is none. Raises ModelError when the graph cannot be read.
    """
    file = read_onnx_file(graph)
    shapes = _weight_shapes(file)
    inputs = {each.name for each in file.info.inputs}
    # Exporters put these between an input, or a weight, and what uses it.
    source = {
        node.output[0]: node.input[0]
        for node in file.graph.graph.node
        if node.op_type in ("Cast", "DequantizeLinear", "Identity", "Reshape")
    }

    def origin(name: str) -> str:
        while name in source:
            name = source[name]
        return name

    for node in file.graph.graph.node:
        if node.op_type == "Gather" and origin(node.input[1]) in inputs:
            table = shapes.get(origin(node.input[0]), ())
            if len(table) == 2:
                return table[0]
    return 0


def _weight_shapes(file: OnnxFile) -> dict[str, tuple[int, ...]]:
    small: list[onnx.TensorProto] = list(file.graph.graph.initializer)
    shapes = {each.name: tuple(each.dims) for each in small}
    return shapes | {each.name: each.shape for each in file.weights}


def _sizes(fixed: int | None, probes: tuple[int, int], *, is_freed: bool) -> tuple[int, int]:
    """Return the two sizes of an axis at which the graph is followed."""
    if fixed is None:
        return probes
    return fixed, (probes[1] if is_freed else fixed)
