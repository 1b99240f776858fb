"""Dynamic quantisation by ONNX Runtime: int8 weights, and activations that are scaled as they come.

https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import onnx
import onnxruntime
from google.protobuf.message import (  # type: ignore[import-untyped]
    DecodeError,
    EncodeError,
)
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


def quantise_dynamically(graph: Path, output: Path) -> None:
    """Write the int8 form of the float32 ONNX file ``graph`` to ``output``.

    Weights are of seven bits, with a scale for each channel: the eighth would overflow in the
    additions of CPUs that have no VNNI instructions, and the file may be used on any. Files are
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
        except (ValueError, RuntimeError, DecodeError, EncodeError) as error:
            raise ModelError(
                f"ONNX Runtime {onnxruntime.__version__} cannot quantise {str(graph)!r}: {error}. "
                "Make sure that there is room on the disk, which the library does not tell, then "
                "check the model by: imagedex models verify NAME"
            ) from error


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
