"""The one place that talks to ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from imagedex.core.errors import ModelError
from imagedex.embedding.runtimes.interfaces import PixelInput, Runtime

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
# As long as the operators take that are run by one thread. Measured on 2 cores against sleeping at
# once: a text of ViT-L/14 in int8 15.6 ms instead of 19.3, the bundled model's 6.2 instead of 7.5.
_SPIN_MICROSECONDS = "100"


def has_cuda() -> bool:
    """Return whether the installed package was built for CUDA; a GPU may be absent all the same."""
    return _CUDA in ort.get_available_providers()


class OnnxRuntimeGraph:
    """A loaded ONNX graph, as ``GraphRunner`` describes it but for the name PIXELS.

    Safe to call from several threads: ONNX Runtime allows concurrent runs of one session.
    """

    def __init__(
        self,
        graph: bytes | Path,
        *,
        name: str,
        threads: int,
        output: str | None = None,
        normalised: PixelInput | None = None,
        on_cuda: bool = False,
    ) -> None:
        """Load ``graph``, an ONNX file or the bytes of one, that errors call ``name``.

        A file may keep its weights in others beside it, bytes cannot. ``output`` names what
        ``run`` returns; None is for a graph with one output. The input that is to be
        ``normalised`` is fed uint8 of shape (n, height, width, 3). ``threads`` is how many cores a
        single run may use. Its threads wait actively for the next operator, but not from one run
        to the next: they would take the cores from the decoders that share the machine.
        """
        if threads < 1:
            raise ValueError(f"A model needs at least one thread, not {threads}.")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_MICROSECONDS)
        self._name = name
        self._outputs = None if output is None else [output]
        self._normalised = normalised
        self._runtime = Runtime.CUDA if on_cuda else Runtime.ONNXRUNTIME
        try:
            self._session = ort.InferenceSession(
                str(graph) if isinstance(graph, Path) else graph,
                sess_options=options,
                providers=[_CUDA, _CPU] if on_cuda else [_CPU],
            )
        except Exception as error:  # ONNX Runtime's errors share no public base class.
            raise ModelError(
                f"ONNX Runtime {ort.__version__} cannot load {name}: {error}. "
                "Install the version of onnxruntime that this release of Imagedex asks for; if "
                "it is that one, the file is damaged: get the model again."
            ) from error
        if on_cuda and _CUDA not in self._session.get_providers():
            # It goes on with the CPU and a line in its log where CUDA's libraries are missing.
            raise ModelError(
                f"ONNX Runtime {ort.__version__} cannot use a GPU for {name}: CUDA, cuDNN or the "
                "driver is missing or has another version than it was built for. Install them, "
                "or set IMAGEDEX_EMBEDDING__RUNTIME=auto to use the CPU."
            )

    @property
    def runtime(self) -> Runtime:
        """ONNXRUNTIME, or CUDA."""
        return self._runtime

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the chosen output for the named inputs."""
        fed = dict(inputs)
        if self._normalised is not None:
            name = self._normalised.name
            fed[name] = _normalise(fed[name], self._normalised)
        try:
            (output,) = self._session.run(self._outputs, fed)
        except Exception as error:  # As above: its errors share no public base class.
            shapes = ", ".join(f"{key} {value.shape}" for key, value in inputs.items())
            raise ModelError(f"{self._name} failed on inputs {shapes}: {error}") from error
        return np.asarray(output, dtype=np.float32)


def _normalise(pixels: NDArray[np.uint8], target: PixelInput) -> NDArray[np.float32]:
    """Return (pixels / 255 - mean) / std, shape (n, 3, height, width)."""
    std = np.array(target.std, dtype=np.float64)
    scale = (1 / (255 * std)).astype(np.float32).reshape(3, 1, 1)
    shift = (np.array(target.mean, dtype=np.float64) / std).astype(np.float32).reshape(3, 1, 1)
    n, height, width, channels = pixels.shape
    floats = np.empty((n, channels, height, width), dtype=np.float32)
    np.multiply(pixels.transpose(0, 3, 1, 2), scale, out=floats)
    floats -= shift
    return floats
