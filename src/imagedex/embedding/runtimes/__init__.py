"""The model runtimes. Nothing here loads one before a graph is loaded or a machine asked."""

from imagedex.embedding.runtimes.graphs import describe_graph, load_graph
from imagedex.embedding.runtimes.interfaces import (
    PIXELS,
    GraphInfo,
    GraphInput,
    GraphOutput,
    GraphRunner,
    Part,
    PixelInput,
    Precision,
    Runtime,
)
from imagedex.embedding.runtimes.support import has_int8_dot_products, resolve_runtime, supports
from imagedex.embedding.runtimes.telemetry import forbid_telemetry

__all__ = [
    "PIXELS",
    "GraphInfo",
    "GraphInput",
    "GraphOutput",
    "GraphRunner",
    "Part",
    "PixelInput",
    "Precision",
    "Runtime",
    "describe_graph",
    "forbid_telemetry",
    "has_int8_dot_products",
    "load_graph",
    "resolve_runtime",
    "supports",
]

# Here, since this is executed before any module of the package can import OpenVINO.
forbid_telemetry()
