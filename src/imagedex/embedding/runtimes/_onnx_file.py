"""An ONNX file, read without its weights.

A file of a gigabyte is a few megabytes of graph and many large tensors. Parsing it with
protobuf, as ``onnx.load`` does, copies all of them; here the outermost layers of the message
are walked by hand, large tensors are noted with their place in the file, and protobuf parses
the rest. Sources: https://protobuf.dev/programming-guides/encoding/ and
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, whose field numbers stand below.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from imagedex.core.errors import ModelError
from imagedex.embedding.runtimes.interfaces import GraphInfo, GraphInput, GraphOutput

LEAST_WEIGHT_BYTES: Final = 65_536
"""Smaller tensors stay in the graph: runtimes read shapes, axes and scales while converting."""

_MODEL_GRAPH: Final = 7
_GRAPH_INITIALIZER: Final = 5
_TENSOR_RAW_DATA: Final = 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_REMEDY: Final = "Pull or copy the model again."


@dataclass(frozen=True, slots=True)
class Weight:
    """A large tensor of a graph and where its bytes lie, in C order and little-endian."""

    name: str
    element_type: int  # TensorProto.DataType.
    shape: tuple[int, ...]
    file: Path
    offset: int
    length: int  # In bytes; what the shape needs.

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of an element."""
        return np.dtype(helper.tensor_dtype_to_np_dtype(self.element_type))


@dataclass(frozen=True, slots=True, eq=False)
class OnnxFile:
    """A graph, and apart from it its large tensors."""

    graph: onnx.ModelProto  # Lacks the initializers that ``weights`` lists.
    weights: tuple[Weight, ...]
    info: GraphInfo


def read_onnx_file(path: Path) -> OnnxFile:
    """Read the graph in ``path``; its weights, in the file or beside it, are not read.

    Raises ModelError when the file cannot be read, breaks off, or is no ONNX graph, and when
    a weight's file is missing or too short.
    """
    try:
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelError(f"The graph {path} cannot be read: {error}. {_REMEDY}") from error
    except ValueError as error:  # What mmap says of a file without bytes.
        raise ModelError(f"The graph {path} has no bytes. {_REMEDY}") from error
    try:
        with mapped:
            return _parse(mapped, path)
    except (DecodeError, _BrokenMessage, TypeError, KeyError, ValueError) as error:
        raise ModelError(
            f"The graph {path} is damaged or no ONNX file: {error}. {_REMEDY}"
        ) from error


class _BrokenMessage(Exception):
    """The bytes are no protobuf message."""


def _parse(data: mmap.mmap, path: Path) -> OnnxFile:
    model = onnx.ModelProto()
    weights: list[Weight] = []
    weight_files: set[Path] = set()
    for number, start, content, end in _fields(data, 0, len(data)):
        if number != _MODEL_GRAPH:
            model.MergeFromString(data[start:end])
            continue
        for inner, inner_start, inner_content, inner_end in _fields(data, content, end):
            if inner != _GRAPH_INITIALIZER:
                model.graph.MergeFromString(data[inner_start:inner_end])
                continue
            tensor, weight = _initializer(data, inner_content, inner_end, path, weight_files)
            if weight is None:
                model.graph.initializer.append(tensor)
            else:
                weights.append(weight)
    for tensor in _tensors_of_nodes(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            weight_files.add(_external_file(tensor, path))
    if not model.graph.output:
        raise _BrokenMessage("it has no outputs")
    constants = {one.name for one in model.graph.initializer} | {one.name for one in weights}
    info = GraphInfo(
        # Files of the first ONNX versions list their weights among the inputs.
        tuple(
            GraphInput(*_described(value))
            for value in model.graph.input
            if value.name not in constants
        ),
        tuple(GraphOutput(*_described(value)) for value in model.graph.output),
        tuple(sorted(weight_files)),
    )
    return OnnxFile(model, tuple(weights), info)


def _initializer(
    data: mmap.mmap, start: int, end: int, path: Path, weight_files: set[Path]
) -> tuple[TensorProto, Weight | None]:
    """Return a tensor with its data, or without it and where the data lies.

    The file of data that lies outside the graph's is added to ``weight_files``.
    """
    rest = bytearray()
    raw: tuple[int, int] | None = None
    for number, field_start, content, field_end in _fields(data, start, end):
        if number == _TENSOR_RAW_DATA and field_end - content >= LEAST_WEIGHT_BYTES:
            raw = (content, field_end - content)
        else:
            rest += data[field_start:field_end]
    tensor = TensorProto.FromString(bytes(rest))
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external(tensor, path, weight_files)
    if raw is None:
        return tensor, None
    return tensor, _weight(tensor, path, *raw)


def _external(
    tensor: TensorProto, path: Path, weight_files: set[Path]
) -> tuple[TensorProto, Weight | None]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _external_file(tensor, path)
    weight_files.add(file)
    offset = int(entries.get("offset", 0))
    with _weight_file_errors(path, file):
        there = file.stat().st_size
    length = int(entries.get("length", there - offset))
    if offset < 0 or length < 0 or offset + length > there:
        raise _BrokenMessage(f"weight {tensor.name!r} lies beyond the end of {file}")
    weight = _weight(tensor, file, offset, length)
    if length >= LEAST_WEIGHT_BYTES:
        return tensor, weight
    with _weight_file_errors(path, file), open(file, "rb") as opened:
        opened.seek(offset)
        tensor.raw_data = opened.read(length)
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT
    return tensor, None


def _external_file(tensor: TensorProto, path: Path) -> Path:
    """Return the file with a tensor's data, which is one of the model's."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = PurePosixPath(entries["location"])
    if location.is_absolute() or ".." in location.parts:
        # The file comes from strangers, and must not make us read what is not the model's.
        raise _BrokenMessage(f"weight {tensor.name!r} lies outside the model, in {location}")
    file = path.parent / location
    with _weight_file_errors(path, file):
        is_other = file.exists() and not file.is_file()
    if is_other:  # Opening a pipe would wait for ever.
        raise _BrokenMessage(f"weight {tensor.name!r} lies in {str(file)!r}, which is no file")
    return file


@contextmanager
def _weight_file_errors(path: Path, file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"The graph {path} keeps weights in {file}, which cannot be read: {error}. "
            f"Copy all files of the model's folder. {_REMEDY}"
        ) from error


def _tensors_of_nodes(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Yield the constants that stand in nodes, and all tensors of graphs within nodes."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            inner = [attribute.g] if attribute.HasField("g") else []
            for each in [*inner, *attribute.graphs]:
                yield from each.initializer
                yield from _tensors_of_nodes(each)


def _weight(tensor: TensorProto, file: Path, offset: int, length: int) -> Weight:
    weight = Weight(tensor.name, tensor.data_type, tuple(tensor.dims), file, offset, length)
    needed = math.prod(weight.shape) * weight.dtype.itemsize
    # A type of less than a byte is packed, which numpy's item size does not tell.
    if needed != length and weight.dtype.isbuiltin == 1:
        raise _BrokenMessage(f"weight {weight.name!r} has {length} bytes instead of {needed}")
    return weight


def _described(
    value: onnx.ValueInfoProto,
) -> tuple[str, np.dtype[Any], tuple[int | None, ...]]:
    tensor = value.type.tensor_type
    shape = tuple(
        axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None
        for axis in tensor.shape.dim
    )
    return value.name, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)), shape


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield each field's number, and where it, its content and its end are."""
    position = start
    while position < end:
        tag, content = _varint(data, position, end)
        wire_type = tag & 7
        if wire_type == _VARINT:
            _, field_end = _varint(data, content, end)
        elif wire_type == _BYTES:
            length, content = _varint(data, content, end)
            field_end = content + length
        elif wire_type in (_FIXED64, _FIXED32):
            field_end = content + (8 if wire_type == _FIXED64 else 4)
        else:
            raise _BrokenMessage(f"byte {position} begins no protobuf field")
        if field_end > end:
            raise _BrokenMessage(f"the field at byte {position} breaks off")
        yield tag >> 3, position, content, field_end
        position = field_end


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """Return the number that begins at ``position`` and where it ends."""
    value = 0
    for index in range(10):
        if position + index >= end:
            break
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise _BrokenMessage(f"the number at byte {position} does not end")
