"""An ONNX file made of a small graph and large weights that never pass through memory.

A serialised protobuf message is the sequence of its fields, and a nested one is a field with a
length in front (https://protobuf.dev/programming-guides/encoding/). So the weights are copied
from the file they are in, between what protobuf itself has written of everything else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

import onnx
from onnx import TensorProto

from imagedex.embedding.runtimes._onnx_file import Weight

# Field numbers of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
_MODEL_GRAPH: Final = 7
_GRAPH_INITIALIZER: Final = 5
_TENSOR_RAW_DATA: Final = 9
_LENGTH_DELIMITED: Final = 2
_BLOCK_BYTES: Final = 1 << 20


def write_onnx_file(
    path: Path, model: onnx.ModelProto, weights: Sequence[Weight], *, source: Path
) -> None:
    """Write ``model`` with ``weights``, which lie in ``source`` or beside it, and flush it.

    Weights beside ``source`` stay where they are and are referred to: ``path`` has to be in the
    same directory. Raises OSError.
    """
    headers = [_tensor_header(weight, source) for weight in weights]
    graph = model.graph.SerializeToString()
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    rest.ClearField("graph")
    fields = [
        (_field(_GRAPH_INITIALIZER, len(header) + (weight.length if is_inside else 0)) + header)
        for weight, (header, is_inside) in zip(weights, headers, strict=True)
    ]
    inside = [
        weight if is_inside else None
        for weight, (_, is_inside) in zip(weights, headers, strict=True)
    ]
    size = len(graph) + sum(map(len, fields)) + sum(each.length for each in inside if each)
    with open(path, "wb") as file, open(source, "rb") as origin:
        file.write(rest.SerializeToString())
        file.write(_field(_MODEL_GRAPH, size))
        file.write(graph)
        for field, weight in zip(fields, inside, strict=True):
            file.write(field)
            if weight is not None:
                file.writelines(_blocks(origin, weight))
        file.flush()
        os.fsync(file.fileno())


def _tensor_header(weight: Weight, source: Path) -> tuple[bytes, bool]:
    """Return a tensor up to its data, and whether that data has to follow."""
    tensor = TensorProto(name=weight.name, data_type=weight.element_type, dims=weight.shape)
    if weight.file == source:
        return tensor.SerializeToString() + _field(_TENSOR_RAW_DATA, weight.length), True
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", weight.file.relative_to(source.parent).as_posix()),
        ("offset", str(weight.offset)),
        ("length", str(weight.length)),
    ):
        tensor.external_data.add(key=key, value=value)
    return tensor.SerializeToString(), False


def _field(number: int, length: int) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _blocks(file: IO[bytes], weight: Weight) -> Iterator[bytes]:
    file.seek(weight.offset)
    left = weight.length
    while left:
        block = file.read(min(left, _BLOCK_BYTES))
        if not block:
            raise OSError(f"{weight.file} ends within {weight.name!r}")
        left -= len(block)
        yield block
