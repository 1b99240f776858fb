"""Transformer towers with random weights, built node by node as the published exports have them.

Weights come from a seed, so that the same call always gives the same graph. ``baked`` shapes are
what an exporter writes that traced one example: batch 1 and one length of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_OPSET = 17


@dataclass(frozen=True)
class Transformer:
    """Size of a tower."""

    width: int
    layers: int
    heads: int
    activation: str  # ``quick_gelu`` of CLIP or ``tanh_gelu`` of SigLIP
    # Batch and length that the exporter baked into the graph, None where both are free.
    baked: tuple[int, int] | None = None


class GraphBuilder:
    """Collects nodes and weights; each method returns the name of what its nodes make."""

    def __init__(self, seed: int) -> None:
        """Draw all weights from ``seed``."""
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add one node with one output."""
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: NDArray[Any] | Sequence[int] | float) -> str:
        """Add a constant; lists of numbers become int64, a float becomes a float32 scalar."""
        dtype = np.float32 if isinstance(value, float) else None
        array = np.asarray(value, dtype=np.int64 if isinstance(value, list) else dtype)
        name = f"constant_{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        """Add random float32 weights; the first axis is what they sum over."""
        values = self._random.standard_normal(shape) / np.sqrt(shape[0])
        return self.constant(values.astype(np.float32))

    def linear(self, value: str, inputs: int, outputs: int) -> str:
        """Return ``value`` through a dense layer."""
        return self.node(
            "Add", self.node("MatMul", value, self.weight(inputs, outputs)), self.weight(outputs)
        )

    def layer_norm(self, value: str, width: int) -> str:
        """Return ``value`` normalised over its last axis."""
        scale = self.constant(np.ones(width, dtype=np.float32))
        shift = self.constant(np.zeros(width, dtype=np.float32))
        return self.node("LayerNormalization", value, scale, shift, axis=-1, epsilon=1e-5)

    def transformer(self, value: str, size: Transformer, *, mask: str | None = None) -> str:
        """Return ``value``, shape (batch, length, width), through all layers."""
        for _ in range(size.layers):
            normal = self.layer_norm(value, size.width)
            value = self.node("Add", value, self.attention(normal, normal, size, mask=mask))
            hidden = self.linear(self.layer_norm(value, size.width), size.width, 4 * size.width)
            hidden = self._activate(hidden, size.activation)
            value = self.node("Add", value, self.linear(hidden, 4 * size.width, size.width))
        return value

    def attention(
        self, query: str, memory: str, size: Transformer, *, mask: str | None = None
    ) -> str:
        """Return multi-head attention of ``query`` over ``memory``."""
        heads, each = size.heads, size.width // size.heads
        # Zero copies the axis, as an export with free axes has it.
        batch, length = size.baked or (0, 0)

        def split(value: str, order: list[int]) -> str:
            projected = self.linear(value, size.width, size.width)
            shaped = self.node("Reshape", projected, self.constant([batch, length, heads, each]))
            return self.node("Transpose", shaped, perm=order)

        scores = self.node("MatMul", split(query, [0, 2, 1, 3]), split(memory, [0, 2, 3, 1]))
        scores = self.node("Mul", scores, self.constant(float(each**-0.5)))
        if mask is not None:
            scores = self.node("Add", scores, mask)
        mixed = self.node(
            "MatMul", self.node("Softmax", scores, axis=-1), split(memory, [0, 2, 1, 3])
        )
        rows = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        joined = self.node("Reshape", rows, self.constant([batch, length, size.width]))
        return self.linear(joined, size.width, size.width)

    def patches(self, pixels: str, *, patch: int, width: int) -> str:
        """Return the patch embeddings of NCHW ``pixels``, shape (batch, patches, width)."""
        kernel = self._random.standard_normal((width, 3, patch, patch)) / patch
        grid = self.node(
            "Conv",
            pixels,
            self.constant(kernel.astype(np.float32)),
            kernel_shape=[patch, patch],
            strides=[patch, patch],
        )
        flat = self.node("Reshape", grid, self.constant([0, width, -1]))
        return self.node("Transpose", flat, perm=[0, 2, 1])

    def repeated(self, row: str, like: str) -> str:
        """Return ``row``, shape (1, 1, width), once for each of the batch of ``like``."""
        batch = self.node("Gather", self.node("Shape", like), self.constant([0]), axis=0)
        shape = self.node("Concat", batch, self.constant([1, 1]), axis=0)
        return self.node("Expand", row, shape)

    def unit(self, value: str) -> str:
        """Return the rows of ``value`` at unit length."""
        length = self.node("ReduceL2", value, axes=[-1], keepdims=1)
        return self.node("Div", value, self.node("Clip", length, self.constant(1e-12)))

    def save(
        self,
        path: Path,
        *,
        inputs: Sequence[tuple[str, int, Sequence[int | str]]],
        outputs: Sequence[tuple[str, str, Sequence[int | str]]],
    ) -> None:
        """Write the graph, checked.

        ``inputs`` are (name, element type, shape); ``outputs`` are (name, what becomes it, shape).
        """
        for name, source, _ in outputs:
            self._nodes.append(helper.make_node("Identity", [source], [name], name=f"to_{name}"))
        graph = helper.make_graph(
            self._nodes,
            "main_graph",
            [helper.make_tensor_value_info(*each) for each in inputs],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, _, shape in outputs
            ],
            self._initializers,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8
        )
        onnx.checker.check_model(model, full_check=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, str(path))

    def _activate(self, value: str, activation: str) -> str:
        if activation == "quick_gelu":
            gate = self.node("Sigmoid", self.node("Mul", value, self.constant(1.702)))
            return self.node("Mul", value, gate)
        cube = self.node("Mul", self.node("Mul", value, value), value)
        inner = self.node("Add", value, self.node("Mul", cube, self.constant(0.044715)))
        bent = self.node("Tanh", self.node("Mul", inner, self.constant(float(np.sqrt(2 / np.pi)))))
        half = self.node("Mul", value, self.constant(0.5))
        return self.node("Mul", half, self.node("Add", bent, self.constant(1.0)))
