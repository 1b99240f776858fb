"""Dynamic quantisation by ONNX Runtime: int8 weights, and activations that are scaled as they come.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html

The library gives a whole input one scale, so that the vector of a text or picture would depend on
what else is in its batch. Graphs of texts can get a scale for each row (a token) instead: integers
are multiplied exactly, so that a row comes out the same in any company.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import (  # type: ignore[import-untyped]
    DecodeError,
    EncodeError,
)
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from imagedex.core.errors import ModelError
from imagedex.models.disk import storage_errors

_OPERATORS: Final = ["MatMul", "Gemm"]
"""Where a transformer's time goes. Convolutions (one, over patches) are slower in int8 than in
float32, and tables of words and positions only lose by it."""

_MOST_IN_ONE_FILE: Final = 1 << 31
"""Bytes of a protobuf message; larger graphs keep their weights in a file beside."""


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide what comes out."""
    return {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}


def quantise_dynamically(graph: Path, output: Path, *, scale_rows: bool) -> None:
    """Write the int8 form of the float32 ONNX file ``graph`` to ``output``.

    Weights are of seven bits, with a scale for each channel: the eighth would overflow in the
    additions of CPUs that have no VNNI instructions, and the file may be used on any. With
    ``scale_rows`` a batch can be of any size, or else it must be of one. Files are
    also made, and removed, in the folder of ``graph``, which holds nothing else that matters.
    Takes three to four times the memory of the graph (measured on ViT-B/32: 3.3). Raises
    ModelError, StorageError.
    """
    total = sum(file.stat().st_size for file in graph.parent.iterdir())
    with storage_errors("write", output), _without_advice():
        try:
            quantize_dynamic(
                graph,
                output,
                op_types_to_quantize=_OPERATORS,
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=total > _MOST_IN_ONE_FILE,
            )
            if scale_rows:
                _scale_each_row(output)
        except (ValueError, RuntimeError, DecodeError, EncodeError) as error:
            raise ModelError(
                f"ONNX Runtime {onnxruntime.__version__} cannot quantise {str(graph)!r}: {error}. "
                "Make sure that there is room on the disk, which the library does not tell, then "
                "check the model by: imagedex models verify NAME"
            ) from error


def _scale_each_row(path: Path) -> None:
    """Replace, in the file, each scale of a whole input by one for each row of its last axis.

    Rows are divided by their largest magnitude before the product and multiplied by it afterwards.
    In between the scale is one constant, as ONNX Runtime expects: it fuses these operators, and of
    many scales in their place it silently takes the first.
    """
    model = onnx.load(path, load_external_data=False)
    opset = next(entry for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    nodes: list[onnx.NodeProto] = []
    scales: dict[str, str] = {}  # The rows' magnitudes, by the name of what was the scale of all.
    weighted: dict[str, str] = {}  # The same, by the name of its product with the weights' scales.
    zero_points = set()
    for node in model.graph.node:  # What a node takes comes before it.
        if node.op_type == "DynamicQuantizeLinear":
            levels, scale, zero_point = node.output
            scales[scale] = f"{levels}_magnitude"
            zero_points.add(zero_point)
            nodes += _quantised_rows(
                node.input[0], levels, scales[scale], axes_are_input=opset.version >= 18
            )
            continue
        nodes.append(node)
        for place, name in enumerate(node.input):
            if name in zero_points:
                node.input[place] = _ZERO_POINT
            elif name in scales:
                node.input[place] = _STEP
                weighted[node.output[0]] = scales[name]
            elif name in weighted:
                product = node.output[0]
                node.output[0] = f"{product}_of_unit_rows"
                nodes.append(helper.make_node("Mul", [node.output[0], weighted[name]], [product]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array([-1], dtype=np.int64), _LAST_AXIS),
            numpy_helper.from_array(np.array(1e-12, dtype=np.float32), _LEAST),
            numpy_helper.from_array(np.array(1 / 127, dtype=np.float32), _STEP),
            numpy_helper.from_array(np.array(128, dtype=np.uint8), _ZERO_POINT),
        ]
    )
    onnx.save(model, path)


_LAST_AXIS, _LEAST, _STEP, _ZERO_POINT = (
    f"imagedex_{name}" for name in ("last_axis", "least", "step", "zero_point")
)


def _quantised_rows(
    values: str, levels: str, magnitude: str, *, axes_are_input: bool
) -> list[onnx.NodeProto]:
    """Return nodes that compute the ``magnitude`` of each row, and of it uint8 around 128."""
    absolute, largest, ratio = (f"{levels}_{name}" for name in ("absolute", "largest", "ratio"))
    if axes_are_input:
        reduce = helper.make_node("ReduceMax", [absolute, _LAST_AXIS], [largest], keepdims=1)
    else:
        reduce = helper.make_node("ReduceMax", [absolute], [largest], axes=[-1], keepdims=1)
    return [
        helper.make_node("Abs", [values], [absolute]),
        reduce,
        helper.make_node("Max", [largest, _LEAST], [magnitude]),  # A row can be all zeros.
        helper.make_node("Div", [values, magnitude], [ratio]),
        helper.make_node("QuantizeLinear", [ratio, _STEP, _ZERO_POINT], [levels]),
    ]


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep out of the log what the library advises its users to do, by way of the root logger."""

    def is_not_advice(record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(is_not_advice)
    try:
        yield
    finally:
        root.removeFilter(is_not_advice)
