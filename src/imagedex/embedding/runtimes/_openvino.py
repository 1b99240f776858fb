"""The one place that talks to OpenVINO."""

from __future__ import annotations

import gc
import math
import mmap
from collections import deque
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from onnx import helper

from imagedex.core.errors import ModelError
from imagedex.embedding.runtimes._onnx_file import OnnxFile, Weight, read_onnx_file
from imagedex.embedding.runtimes.interfaces import (
    GraphInfo,
    GraphInput,
    GraphOutput,
    PixelInput,
    Precision,
    Runtime,
)

_DEVICE = "CPU"


def cpu_capabilities() -> frozenset[str]:
    """Return what OpenVINO can compute in on this CPU, for example FP32, BF16, INT8."""
    return frozenset(ov.Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"))


def describe_openvino_graph(path: Path) -> GraphInfo:
    """Return the inputs and outputs of a graph in OpenVINO's own format (.xml beside .bin).

    Its weights are mapped, not read. Raises ModelError when it cannot be used.
    """
    try:
        model = ov.Core().read_model(path)
    except RuntimeError as error:
        raise ModelError(
            f"OpenVINO {ov.__version__} cannot read {path}: {error}. Make it again by: imagedex "
            "models quantize NAME --images DIR"
        ) from error
    return GraphInfo(
        inputs=tuple(GraphInput(*_described(port)) for port in model.inputs),
        outputs=tuple(GraphOutput(*_described(port)) for port in model.outputs),
        weight_files=(path.with_suffix(".bin"),),
    )


def _described(port: Any) -> tuple[str, np.dtype[Any], tuple[int | None, ...]]:
    shape = tuple(
        axis.get_length() if axis.is_static else None for axis in port.get_partial_shape()
    )
    return port.get_any_name(), np.dtype(port.get_element_type().to_dtype()), shape


def load_openvino_graph(
    path: Path,
    *,
    threads: int,
    precision: Precision,
    output: str,
    normalised: PixelInput | None,
) -> OpenVinoGraph:
    """Load the graph in ``path``; inputs, output and precision have been checked.

    The input that is to be ``normalised`` is fed uint8 of shape (n, height, width, 3).

    Weights are mapped from the file, not copied: OpenVINO keeps its own, packed for the CPU,
    and the pages of the file are given back after each run. Read the plain way, a
    ViT-L/14 of 1.2 GB takes 2.6 GB for good; so it takes 1.4 GB.
    """
    options = {
        # One caller at a time gets all cores; the THROUGHPUT hint would give it half of them.
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        # Binding threads to cores would put two workers of one machine on the same cores.
        "ENABLE_CPU_PINNING": False,
        # Said outright, since OpenVINO takes bfloat16 of its own accord on CPUs that have it.
        "INFERENCE_PRECISION_HINT": "bf16" if precision is Precision.BF16 else "f32",
    }
    weights = _MappedWeights()
    try:
        core = ov.Core()
        model = _with_output(_read(core, path, weights), output)
        if normalised is not None:
            model = _with_normalisation(model, normalised)
        compiled = core.compile_model(model, _DEVICE, options)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"OpenVINO {ov.__version__} cannot load {path} in {precision}: {reason}. Set "
            "IMAGEDEX_EMBEDDING__RUNTIME=onnxruntime to run it there, or get the model again."
        ) from error
    del model
    gc.collect()  # OpenVINO's Python objects refer to each other, and hold on to weights.
    weights.release()
    return OpenVinoGraph(compiled, weights, name=str(path))


class OpenVinoGraph:
    """A compiled graph, as ``GraphRunner`` describes it but for the name PIXELS.

    Safe to call from several threads: each call has an infer request to itself. OpenVINO runs
    them one after the other, each on all of the graph's threads.
    """

    def __init__(self, compiled: ov.CompiledModel, weights: _MappedWeights, *, name: str) -> None:
        """Run ``compiled``, a graph with one output that errors call ``name``."""
        self._compiled = compiled
        self._weights = weights
        self._name = name
        # Kept for the next call, since each holds the activations' memory.
        self._idle: deque[ov.InferRequest] = deque()

    @property
    def runtime(self) -> Runtime:
        """OPENVINO."""
        return Runtime.OPENVINO

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the chosen output for the named inputs."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            results = request.infer(dict(inputs), share_inputs=True, share_outputs=True)
            # Copied, as the request's next run writes its results to the same place.
            output = np.array(results[0], dtype=np.float32)
        except (RuntimeError, TypeError, ValueError) as error:
            shapes = ", ".join(f"{key} {value.shape}" for key, value in inputs.items())
            reason = " ".join(str(error).split())
            raise ModelError(f"{self._name} failed on inputs {shapes}: {reason}") from error
        self._idle.append(request)
        # Weights are packed by the first run, and again by one of a size that wants them packed
        # in another way; without pages to give back this is a system call of microseconds.
        self._weights.release()
        return output


class _MappedWeights:
    """The files of a graph's weights, mapped into memory."""

    def __init__(self) -> None:
        self._maps: dict[Path, mmap.mmap] = {}

    def array(self, weight: Weight) -> NDArray[Any]:
        """Return a weight without reading it."""
        if weight.file not in self._maps:
            with open(weight.file, "rb") as file:
                # Copy on write, as OpenVINO asks for writable memory, though it never writes.
                self._maps[weight.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        flat = np.frombuffer(
            self._maps[weight.file],
            dtype=weight.dtype,
            count=math.prod(weight.shape),
            offset=weight.offset,
        )
        return flat.reshape(weight.shape)

    def release(self) -> None:
        """Give the pages that have been read back to the system; reading them again is safe."""
        for mapped in self._maps.values():
            mapped.madvise(mmap.MADV_DONTNEED)


def _read(core: ov.Core, path: Path, weights: _MappedWeights) -> ov.Model:
    """Read the graph with its weights mapped, or the plain way where that does not do."""
    if path.suffix == ".xml":
        return core.read_model(path)  # OpenVINO's own format, whose weights it maps itself.
    file = read_onnx_file(path)
    mappable = {one.name: one for one in file.weights if one.dtype.isbuiltin == 1}
    if len(mappable) < len(file.weights):
        return core.read_model(path)
    try:
        model = core.read_model(BytesIO(_with_weights_as_inputs(file)))
    except RuntimeError:
        # Some operators, such as MatMulNBits, are converted only when their weights are
        # constants at this point. What else is wrong with the file is raised by this line.
        return core.read_model(path)
    for parameter in model.get_parameters():
        weight = mappable.get(parameter.get_friendly_name())
        if weight is not None:
            constant = ov.op.Constant(weights.array(weight), shared_memory=True)
            constant.set_friendly_name(weight.name)
            parameter.output(0).replace(constant.output(0))
            model.remove_parameter(parameter)
    return model


def _with_weights_as_inputs(file: OnnxFile) -> bytes:
    # OpenVINO's own way to leave weights outside, external data, refuses files that lie in
    # another folder than the graph, and there may be no room or right to write one there.
    inputs = {value.name for value in file.graph.graph.input}
    for weight in file.weights:
        if weight.name not in inputs:
            file.graph.graph.input.append(
                helper.make_tensor_value_info(weight.name, weight.element_type, weight.shape)
            )
    content: bytes = file.graph.SerializeToString()
    return content


def _with_output(model: ov.Model, name: str) -> ov.Model:
    """Return the model with this output alone, so that no other is computed."""
    (result,) = (one for one in model.get_results() if name in one.input_value(0).get_names())
    return ov.Model([result.input_value(0)], model.get_parameters())


def _with_normalisation(model: ov.Model, pixels: PixelInput) -> ov.Model:
    """Return the model as one that takes uint8 pixels of the right height and width."""
    batch = model.input(pixels.name).get_partial_shape()[0]
    edges = (ov.Dimension(edge) for edge in (3, pixels.height, pixels.width))
    # Some graphs leave height and width open, though their position embeddings fit one size;
    # knowing it, OpenVINO can work out most shapes while it compiles.
    model.reshape({pixels.name: ov.PartialShape([batch, *edges])})
    steps = ov.preprocess.PrePostProcessor(model)
    target = steps.input(pixels.name)
    target.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    target.model().set_layout(ov.Layout("NCHW"))
    mean, std = ([255 * value for value in values] for values in (pixels.mean, pixels.std))
    target.preprocess().convert_element_type(ov.Type.f32).mean(mean).scale(std)
    return steps.build()
