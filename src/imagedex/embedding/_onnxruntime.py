"""The one place that talks to ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from imagedex.core.errors import ModelError


class OnnxSession:
    """A loaded ONNX graph with one float32 output, run on the CPU.

    Safe to call from several threads: ONNX Runtime allows concurrent runs of one session.
    """

    def __init__(self, graph: bytes, *, name: str, threads: int) -> None:
        """Load ``graph``, the bytes of an ONNX file that errors call ``name``.

        ``threads`` is how many cores a single run may use. Idle threads sleep rather than
        spin: spinning ones would take the cores from the decoders that share the machine.
        """
        if threads < 1:
            raise ValueError(f"A model needs at least one thread, not {threads}.")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._name = name
        try:
            self._session = ort.InferenceSession(
                graph, sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's errors share no public base class.
            raise ModelError(
                f"ONNX Runtime {ort.__version__} cannot load {name}: {error}. "
                "Install the version of onnxruntime that this release of Imagedex asks for."
            ) from error

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the graph's only output for the named inputs."""
        try:
            (output,) = self._session.run(None, dict(inputs))
        except Exception as error:  # As above: its errors share no public base class.
            shapes = ", ".join(f"{key} {value.shape}" for key, value in inputs.items())
            raise ModelError(f"{self._name} failed on inputs {shapes}: {error}") from error
        return np.asarray(output, dtype=np.float32)
