"""Reading and loading the ONNX file of a model."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from imagedex.core.errors import ModelError
from imagedex.embedding.runtimes.interfaces import (
    GraphInfo,
    GraphInput,
    GraphRunner,
    Part,
    PixelInput,
    Precision,
    Runtime,
)
from imagedex.embedding.runtimes.pixels import PixelRunner
from imagedex.embedding.runtimes.support import resolve_runtime, supports

# The adapters and their runtimes are imported where they are used: decoder processes import
# this module on the way to a preprocessing step and would each carry every runtime.


_OPENVINO_FORMAT: Final = ".xml"


def describe_graph(path: Path) -> GraphInfo:
    """Return the inputs and outputs of the graph in ``path``, ONNX or OpenVINO's own format.

    Cheap for a file of any size: weights are not read. Raises ModelError when the file is
    missing or is no such graph.
    """
    if path.suffix == _OPENVINO_FORMAT:
        from imagedex.embedding.runtimes._openvino import describe_openvino_graph

        _require_openvino(path)
        return describe_openvino_graph(path)
    from imagedex.embedding.runtimes._onnx_file import read_onnx_file

    return read_onnx_file(path).info


def load_graph(
    path: Path,
    *,
    threads: int,
    output: str,
    runtime: Runtime = Runtime.AUTO,
    precision: Precision = Precision.FP32,
    pixels: PixelInput | None = None,
) -> GraphRunner:
    """Load the graph in ``path``, to compute ``output`` on ``threads`` cores.

    ``pixels`` says which input takes uint8 pixels; AUTO takes a graph with such an input for
    the image half of a model and any other for the text half. ``precision`` has to be what the
    file was made for: only INT8 has files of its own, each made for one runtime, and one in ONNX
    is given one picture at a time. The file must not be changed in place
    while it is loaded, since weights may stay mapped from it; replacing it by rename is fine.
    Raises ModelError when file, runtime and precision do not go together.
    """
    if threads < 1:
        raise ValueError(f"A model needs at least one thread, not {threads}.")
    info = describe_graph(path)
    if output not in {found.name for found in info.outputs}:
        names = ", ".join(found.name for found in info.outputs)
        raise ModelError(f"The graph {path} has no output {output!r}; it has {names}.")
    part: Part = "text" if pixels is None else "image"
    if precision is Precision.INT8:
        chosen = _runtime_of_int8(path, runtime, part)
    else:
        chosen = resolve_runtime(runtime, precision, part)
    if pixels is None:
        return _load(path, threads, output, chosen, precision, None)
    found = _pixel_input(info, pixels, path)
    normalised = pixels if found.dtype == np.float32 else None
    runner = _load(path, threads, output, chosen, precision, normalised)
    # The int8 form in ONNX scales its activations by the largest of a whole input, so that the
    # vector of a picture would depend on what else is in its batch.
    is_mixing = precision is Precision.INT8 and chosen is Runtime.ONNXRUNTIME
    return PixelRunner(runner, name=found.name, takes_one=is_mixing or found.shape[0] == 1)


def _runtime_of_int8(path: Path, runtime: Runtime, part: Part) -> Runtime:
    """Return what the int8 file was made for, which the file's format tells.

    Raises ModelError when something else was asked for, but for texts: their int8 form is for
    ONNX Runtime, whatever computes the pictures.
    """
    made_for = Runtime.OPENVINO if path.suffix == _OPENVINO_FORMAT else Runtime.ONNXRUNTIME
    if part == "image" and runtime not in (Runtime.AUTO, made_for):
        method = "calibrated" if runtime is Runtime.OPENVINO else "dynamic"
        remedy = (
            "use fp32 there"
            if runtime is Runtime.CUDA
            else f"make it for {runtime} by: imagedex models quantize NAME --images DIR "
            f"--method {method}"
        )
        raise ModelError(
            f"The int8 graph {path} was made for {made_for} and cannot be run by {runtime}; set "
            f"IMAGEDEX_EMBEDDING__RUNTIME=auto, or {remedy}."
        )
    return resolve_runtime(made_for, Precision.INT8, part)


def _require_openvino(path: Path) -> None:
    reason = supports(Precision.INT8, Runtime.OPENVINO)
    if reason is not None:
        raise ModelError(f"The graph {path} is for OpenVINO: {reason}")


def _load(
    path: Path,
    threads: int,
    output: str,
    runtime: Runtime,
    precision: Precision,
    normalised: PixelInput | None,
) -> GraphRunner:
    if runtime is Runtime.OPENVINO:
        from imagedex.embedding.runtimes._openvino import load_openvino_graph

        return load_openvino_graph(
            path, threads=threads, precision=precision, output=output, normalised=normalised
        )
    from imagedex.embedding.runtimes._onnxruntime import OnnxRuntimeGraph

    return OnnxRuntimeGraph(
        path,
        name=str(path),
        threads=threads,
        output=output,
        normalised=normalised,
        on_cuda=runtime is Runtime.CUDA,
    )


def _pixel_input(info: GraphInfo, pixels: PixelInput, path: Path) -> GraphInput:
    """Return the graph's input for pixels. Raises ModelError when it takes others."""
    found = next((one for one in info.inputs if one.name == pixels.name), None)
    if found is None:
        names = ", ".join(one.name for one in info.inputs)
        raise ModelError(f"The graph {path} has no input {pixels.name!r}; it has {names}.")
    expected = {
        "float32": (3, pixels.height, pixels.width),
        "uint8": (pixels.height, pixels.width, 3),
    }.get(found.dtype.name)
    fits = (
        expected is not None
        and len(found.shape) == 4
        and found.shape[0] in (None, 1)
        and all(edge in (None, want) for edge, want in zip(found.shape[1:], expected, strict=True))
    )
    if not fits:
        raise ModelError(
            f"The graph {path} takes {found.dtype} of shape {found.shape} as {pixels.name!r}; "
            f"expected is float32 of shape (n, 3, {pixels.height}, {pixels.width}), or uint8 of "
            f"shape (n, {pixels.height}, {pixels.width}, 3), with n open or 1. Export it again "
            "with an open batch axis, or correct the size in the model's preprocessing file."
        )
    return found
