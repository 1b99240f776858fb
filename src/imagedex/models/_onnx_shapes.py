"""Shapes of everything in an ONNX graph, for two sizes of its input at once.

``before`` is the size that an exporter baked into the graph, ``after`` another one. What differs
between the two follows the batch or the length; what is the same in both is the model's own.
The rules of the operators are onnx's (its shape inference and its reference implementation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from imagedex.embedding.runtimes._onnx_file import Weight

Shape = tuple[int, ...]
_Values = tuple[NDArray[Any], NDArray[Any]]  # Before and after.

# Shapes and indices are small; weights are never looked into.
_MAX_VALUES = 4096
# Beside whole numbers only scalars such as a scale matter, since masks are made of them.
_MAX_OTHER_VALUES = 16


class Untraceable(Exception):
    """The shape of something cannot be followed, or contradicts another; says which and why."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of the two axes that a text or a picture may change."""

    batch: int
    length: int  # Of no meaning in a graph of pictures.


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of one value of the graph, at both sizes."""

    element: int  # Of TensorProto.DataType.
    before: Shape
    after: Shape
    is_constant: bool  # Does not depend on what is fed to the graph, but perhaps on its sizes.
    # What a small value holds, where that follows from sizes and constants.
    values: _Values | None = None

    @property
    def moves(self) -> bool:
        """Whether its shape follows the batch or the length."""
        return self.before != self.after


class ShapeTracer:
    """Follows facts from node to node in the order of the graph."""

    def __init__(self, model: onnx.ModelProto, weights: Sequence[Weight]) -> None:
        """Start with the constants of ``model`` and the large ones that were kept out of it."""
        self._opsets = list(model.opset_import)
        self._versions = {each.domain: each.version for each in model.opset_import}
        self._ir_version = model.ir_version
        self._facts: dict[str, Fact] = {}
        for weight in model.graph.initializer:
            self._facts[weight.name] = _constant(weight)
        for large in weights:
            self._facts[large.name] = Fact(large.element_type, large.shape, large.shape, True)

    def __contains__(self, name: str) -> bool:
        return name in self._facts

    def __getitem__(self, name: str) -> Fact:
        try:
            return self._facts[name]
        except KeyError:
            raise Untraceable(f"what {name!r} holds comes from nowhere") from None

    def put(self, name: str, fact: Fact) -> None:
        """Say what is known of a value; of an input of the graph for instance."""
        self._facts[name] = fact

    def follow(self, node: onnx.NodeProto) -> None:
        """Put the facts of what ``node`` makes. Raises Untraceable."""
        if node.op_type == "Constant" and not node.domain:
            self.put(node.output[0], _constant_node(node))
            return
        for name, fact in self._outputs(node):
            self.put(name, fact)

    def shapes(self, node: onnx.NodeProto, *, after: bool) -> dict[str, tuple[int, Shape]]:
        """Return element type and shape of each output of ``node``. Raises Untraceable."""
        types, data = {}, {}
        for name in filter(None, node.input):
            fact = self[name]
            shape = fact.after if after else fact.before
            types[name] = helper.make_tensor_type_proto(fact.element, shape)
            if fact.values is not None:
                data[name] = numpy_helper.from_array(np.asarray(fact.values[after]), name)
        try:
            schema = onnx.defs.get_schema(
                node.op_type, self._versions.get(node.domain, 1), node.domain
            )
            found = shape_inference.infer_node_outputs(
                schema,
                node,
                types,
                data,
                opset_imports=self._opsets,
                ir_version=self._ir_version,
            )
        except (shape_inference.InferenceError, onnx.defs.SchemaError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise Untraceable(
                f"{node.op_type} {node.name!r} does not fit another size: {reason}"
            ) from error
        return {name: _known(node, name, found.get(name)) for name in filter(None, node.output)}

    def _outputs(self, node: onnx.NodeProto) -> Iterator[tuple[str, Fact]]:
        inputs = [self[name] for name in node.input if name]
        before = self.shapes(node, after=False)
        after = self.shapes(node, after=True)
        values: list[_Values | None] = [None] * len(before)
        if node.op_type == "Shape":
            # The one operator whose output is known though its input is not.
            source = inputs[0]
            start, end = _attribute(node, "start", 0), _attribute(node, "end", len(source.before))
            first, second = source.before[start:end], source.after[start:end]
            values = [(np.array(first, np.int64), np.array(second, np.int64))]
        elif all(fact.values is not None for fact in inputs) and _is_small(before, after):
            values = list(zip(self._run(node, 0), self._run(node, 1), strict=True))
        is_constant = node.op_type == "Shape" or all(fact.is_constant for fact in inputs)
        for (name, (element, shape)), held in zip(before.items(), values, strict=True):
            yield name, Fact(element, shape, after[name][1], is_constant, held)

    def _run(self, node: onnx.NodeProto, size: int) -> list[NDArray[Any]]:
        """Return what a node with small inputs makes, before (0) or after (1)."""
        feeds = {}
        for name in filter(None, node.input):
            values = self[name].values
            if values is not None:
                feeds[name] = np.asarray(values[size])
        found = ReferenceEvaluator(node, opsets=self._versions).run(None, feeds)
        return [np.asarray(each) for each in found]


def _constant(weight: TensorProto) -> Fact:
    shape = tuple(weight.dims)
    values = None
    if _may_be_held(shape, weight.data_type):
        value = numpy_helper.to_array(weight)
        values = (value, value)
    return Fact(weight.data_type, shape, shape, True, values)


def _constant_node(node: onnx.NodeProto) -> Fact:
    attribute = node.attribute[0]
    if attribute.name == "value":
        return _constant(attribute.t)
    value = np.asarray(helper.get_attribute_value(attribute))
    if value.dtype.kind == "f":
        value = value.astype(np.float32)
    element = helper.np_dtype_to_tensor_dtype(value.dtype)
    return Fact(element, value.shape, value.shape, True, (value, value))


def _known(node: onnx.NodeProto, name: str, found: onnx.TypeProto | None) -> tuple[int, Shape]:
    tensor = found.tensor_type if found is not None else onnx.TypeProto.Tensor()
    if not tensor.HasField("shape") or not all(
        axis.HasField("dim_value") for axis in tensor.shape.dim
    ):
        raise Untraceable(f"the shape of {name!r}, which {node.op_type} makes, cannot be followed")
    return tensor.elem_type, tuple(axis.dim_value for axis in tensor.shape.dim)


def _is_small(*outputs: dict[str, tuple[int, Shape]]) -> bool:
    return all(_may_be_held(shape, element) for each in outputs for element, shape in each.values())


def _may_be_held(shape: Shape, element: int) -> bool:
    is_whole = element in (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
    return int(np.prod(shape)) <= (_MAX_VALUES if is_whole else _MAX_OTHER_VALUES)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((each.i for each in node.attribute if each.name == name), default)
