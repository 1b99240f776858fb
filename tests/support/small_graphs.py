"""ONNX graphs of a few nodes, for what a runtime does with any graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 8
DIM = 4


def image_graph(
    path: Path,
    *,
    batch: int | str = "batch",
    side: int | str = SIDE,
    takes_bytes: bool = False,
    external: str | None = None,
    hidden: int = 256,
) -> Path:
    """Write a graph from ``image`` to ``embedding``, and to ``hidden``; return its path.

    Two matrices, the first of which is large enough to be mapped: pixels of SIDE x SIDE are
    flattened, multiplied by 0.01 times 3 * SIDE * SIDE x ``hidden`` numbers, then by another.
    """
    random = np.random.default_rng(1)
    flat = 3 * SIDE * SIDE
    first = (random.standard_normal((flat, hidden)) * 0.01).astype(np.float32)
    second = (random.standard_normal((hidden, DIM)) * 0.1).astype(np.float32)
    shape = [batch, side, side, 3] if takes_bytes else [batch, 3, side, side]
    nodes = []
    pixels = "image"
    if takes_bytes:
        nodes += [
            helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        ]
        pixels = "planes"
    nodes += [
        helper.make_node("Reshape", [pixels, "flat_shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "second"], ["embedding"]),
    ]
    kind = TensorProto.UINT8 if takes_bytes else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", kind, shape)],
        [
            helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [batch, hidden]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, DIM]),
        ],
        [
            numpy_helper.from_array(np.array([-1, flat], dtype=np.int64), "flat_shape"),
            numpy_helper.from_array(first, "first"),
            numpy_helper.from_array(second, "second"),
        ],
    )
    _save(graph, path, external)
    return path


def text_graph(path: Path) -> Path:
    """Write a graph that doubles the int64 ``ids`` of shape (n, length) as floats."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["ids"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["floats", "floats"], ["doubled"]),
        ],
        "small",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "length"])],
        [helper.make_tensor_value_info("doubled", TensorProto.FLOAT, ["n", "length"])],
    )
    _save(graph, path, None)
    return path


def _save(graph: onnx.GraphProto, path: Path, external: str | None) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if external is None:
        onnx.save(model, path)
    else:
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=1_000)
