"""An ONNX graph of which batch and length were baked in, rewritten for any batch and length.

Torch's exporters write the sizes of the one example that they traced into the graph: as targets
of reshapes, as a mask of fixed size, as position embeddings that were already chosen. The graph
is followed at its baked size and at another one side by side (``_onnx_shapes``). Where the two
meet a baked size, the node gets what belongs there at any size:

- a reshape gets a target of which the free axes follow the input;
- a constant that is as long as the longest text is cut to the text's length;
- a row that was repeated for a batch of one is repeated for the batch;
- rows that are picked from the flattened batch are counted from their own text's start.

A batch of one leaves no trace in a shape, so that a target may be read in two ways: (1, 77, 4, 12)
as (77, 48) for instance. The first reading that leads to no contradiction further on is taken.
Whether the result is right is proven by numbers elsewhere (``text_axis``), never assumed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from imagedex.embedding.runtimes._onnx_file import Weight
from imagedex.models._onnx_readings import Readings, reshaped, shape_after_reshape
from imagedex.models._onnx_shapes import Fact, Shape, ShapeTracer, Sizes, Untraceable

_PREFIX = "imagedex/"
_MAX_ATTEMPTS = 256

# Operators that stretch axes of size 1, and in which a constant meets what a text has become.
_BROADCASTING = frozenset(
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Min Mod Mul Or Pow Sub".split()
) | {"Where"}


def release_axes(
    model: onnx.ModelProto, weights: Sequence[Weight], *, before: Sizes, after: Sizes
) -> None:
    """Rewrite ``model`` in place for any size of each axis that differs in ``after``.

    The first axis of each input is its batch, the second of a text is its length. An axis of the
    same size in both stays as it is; one that is free already differs too, and a baked batch is
    1. ``weights`` are those that were kept out of the model. Raises Untraceable, with the model as
    it was, when no reading leads through the graph.
    """
    readings = Readings()
    furthest = -1
    fault = Untraceable("its shapes can be read in too many ways")
    for _ in range(_MAX_ATTEMPTS):
        release = _Release(model, weights, before, after, readings)
        try:
            nodes = release.nodes()
        except Untraceable as error:
            # The reading that led furthest was the best one; the others say nothing of the graph.
            if release.progress > furthest:
                furthest, fault = release.progress, error
            if not readings.step():
                break
        else:
            release.apply(nodes)
            return
    raise fault


class _Release:
    """One attempt: the new nodes of the graph under the readings that are taken."""

    def __init__(
        self,
        model: onnx.ModelProto,
        weights: Sequence[Weight],
        before: Sizes,
        after: Sizes,
        readings: Readings,
    ) -> None:
        self._model = model
        self._before = before
        self._after = after
        self._readings = readings
        self._facts = ShapeTracer(model, weights)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[TensorProto] = []
        self._makers: dict[str, onnx.NodeProto] = {}
        self._cuts: dict[tuple[str, Shape], str] = {}
        self._shapes: dict[tuple[Any, ...], str] = {}

    @property
    def progress(self) -> int:
        """How many nodes there were no contradictions in."""
        return len(self._nodes)

    def nodes(self) -> list[onnx.NodeProto]:
        """Return all nodes in order. Raises Untraceable."""
        graph = self._model.graph
        weights = {weight.name for weight in graph.initializer}
        inputs = [each for each in graph.input if each.name not in weights]
        for each in inputs:
            self._facts.put(each.name, self._input_fact(each))
        self._source = inputs[0].name
        for original in graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(original)
            self._adapt(node)
            self._append(node)
        for output in graph.output:
            fact = self._facts[output.name]
            if fact.after[:1] != (self._after.batch,):
                raise Untraceable(f"the output {output.name!r} does not follow the batch")
        return self._nodes

    def apply(self, nodes: list[onnx.NodeProto]) -> None:
        """Put the new nodes into the model, with free axes and without stale shapes."""
        graph = self._model.graph
        weights = {weight.name for weight in graph.initializer}
        del graph.node[:]
        graph.node.extend(_needed(nodes, [output.name for output in graph.output]))
        used = {name for node in graph.node for name in node.input}
        graph.initializer.extend(self._weights)
        unused = [index for index, each in enumerate(graph.initializer) if each.name not in used]
        for index in reversed(unused):
            del graph.initializer[index]
        # They were inferred for the baked sizes.
        del graph.value_info[:]
        for each in itertools.chain(graph.input, graph.output):
            if each.name in weights:
                continue
            fact = self._facts[each.name]
            axes = each.type.tensor_type.shape.dim
            del axes[:]
            for before, after in zip(fact.before, fact.after, strict=True):
                axis = axes.add()
                if before == after:
                    axis.dim_value = after
                else:
                    axis.dim_param = "batch" if after == self._after.batch else "length"

    @property
    def _frees_batch(self) -> bool:
        return self._before.batch == 1 != self._after.batch

    @property
    def _frees_length(self) -> bool:
        return self._before.length != self._after.length

    def _input_fact(self, each: onnx.ValueInfoProto) -> Fact:
        tensor = each.type.tensor_type
        rank = len(tensor.shape.dim)
        if rank == 2:
            before: Shape = (self._before.batch, self._before.length)
            after: Shape = (self._after.batch, self._after.length)
        else:
            rest = tuple(axis.dim_value for axis in tensor.shape.dim[1:])
            if not all(rest):
                raise Untraceable(f"the input {each.name!r} has no fixed height and width")
            before, after = (self._before.batch, *rest), (self._after.batch, *rest)
        return Fact(tensor.elem_type, before, after, is_constant=False)

    # Nodes

    def _append(self, node: onnx.NodeProto) -> None:
        self._facts.follow(node)
        self._nodes.append(node)
        for name in node.output:
            self._makers[name] = node

    def _emit(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{_PREFIX}{kind}_{len(self._nodes)}"
        self._append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _emit_constant(self, values: Sequence[int] | NDArray[np.int64]) -> str:
        name = f"{_PREFIX}constant_{len(self._weights)}"
        array = np.asarray(values, dtype=np.int64)
        self._weights.append(numpy_helper.from_array(array, name))
        self._facts.put(
            name, Fact(TensorProto.INT64, array.shape, array.shape, True, (array, array))
        )
        return name

    def _shape_vector(self, entries: tuple[tuple[int, int], ...]) -> str:
        """Return the name of an int64 vector of the sizes ``after``, made at run time.

        An entry is a size before and after; those that are the same are constants.
        """
        if entries not in self._shapes:
            parts = [
                self._emit_constant([after])
                if before == after
                else self._moving_size(before, after)
                for before, after in entries
            ]
            joined = parts[0] if len(parts) == 1 else self._emit("Concat", *parts, axis=0)
            self._shapes[entries] = joined
        return self._shapes[entries]

    def _moving_size(self, before: int, after: int) -> str:
        """Return the name of a vector of one size that is a multiple of batch or length."""
        factors = []
        rest = after
        for axis, (old, new) in enumerate(
            (
                (self._before.batch, self._after.batch),
                (self._before.length, self._after.length),
            )
        ):
            while old != new and rest % new == 0 and rest != before:
                rest //= new
                before, remainder = divmod(before, old)
                if remainder:
                    raise Untraceable(f"a size of {after} is no multiple of what was baked")
                factors.append(axis)
        if rest != before:
            raise Untraceable(f"a size of {after} is no multiple of what was baked")
        name = ""
        for axis in factors:
            size = self._axis_size(axis)
            name = self._emit("Mul", name, size) if name else size
        return name if rest == 1 else self._emit("Mul", name, self._emit_constant([rest]))

    def _axis_size(self, axis: int) -> str:
        key = ("axis", axis)
        if key not in self._shapes:
            shape = self._emit("Shape", self._source)
            self._shapes[key] = self._emit("Gather", shape, self._emit_constant([axis]), axis=0)
        return self._shapes[key]

    # What was baked

    def _adapt(self, node: onnx.NodeProto) -> None:
        if node.domain:
            raise Untraceable(f"it has operators of {node.domain}, of which only their own know")
        if node.op_type in _BROADCASTING:
            self._cut_constants(node)
        elif node.op_type == "Reshape":
            self._adapt_reshape(node)
        elif node.op_type == "Expand":
            self._adapt_expand(node)
        elif node.op_type == "Concat" and self._frees_batch:
            self._repeat_constants(node)
        elif node.op_type == "GatherElements" and self._frees_batch:
            self._repeat_table(node)
        elif node.op_type == "Gather" and self._frees_batch:
            self._count_from_own_start(node)
        elif node.op_type == "GatherND" and self._frees_batch:
            self._pick_within_own_row(node)

    def _cut_constants(self, node: onnx.NodeProto) -> None:
        """Cut the constants that were as long as the longest text to the text's length."""
        if not self._frees_length:
            return
        rank = max((len(self._facts[name].after) for name in node.input), default=0)
        long, real = self._before.length, self._after.length
        wanted = [set[int]() for _ in range(rank)]
        for name in node.input:
            shape = self._facts[name].after
            for axis, size in enumerate(shape, start=rank - len(shape)):
                wanted[axis].add(size)
        for index, name in enumerate(node.input):
            fact = self._facts[name]
            offset = rank - len(fact.after)
            axes = tuple(
                axis
                for axis, size in enumerate(fact.after)
                if size == long and fact.is_constant and real in wanted[axis + offset]
            )
            if axes:
                node.input[index] = self._cut(name, axes)

    def _cut(self, name: str, axes: Shape) -> str:
        if (name, axes) not in self._cuts:
            ends = self._shape_vector(((self._before.length, self._after.length),) * len(axes))
            starts = self._emit_constant([0] * len(axes))
            self._cuts[name, axes] = self._emit(
                "Slice", name, starts, ends, self._emit_constant(axes)
            )
        return self._cuts[name, axes]

    def _adapt_reshape(self, node: onnx.NodeProto) -> None:
        fact, target = self._facts[node.input[0]], self._facts[node.input[1]]
        if target.values is None:
            raise Untraceable(f"the target of Reshape {node.name!r} cannot be followed")
        before = self._facts.shapes(node, after=False)[node.output[0]][1]
        readings = list(
            dict.fromkeys(
                reshaped(fact, before, sizes_before=self._before, sizes_after=self._after)
            )
        )
        as_it_is = shape_after_reshape(fact.after, target.values[1].tolist())
        # A target that was computed follows the sizes; a constant one was perhaps baked.
        if as_it_is in (readings[:1] if np.array_equal(*target.values) else readings):
            return
        if not readings:
            raise Untraceable(f"the target of Reshape {node.name!r} fits no other size")
        taken = self._readings.take((fact.before, fact.after, before), len(readings))
        node.input[1] = self._reshape_target(fact, before, readings[taken])
        # Zero copies an axis of the input, which the other convention cannot say.
        _remove_attribute(node, "allowzero")

    def _reshape_target(self, fact: Fact, before: Shape, after: Shape) -> str:
        """Return a target without arithmetic where zero and one -1 can say it."""
        moving = [axis for axis, size in enumerate(after) if size != before[axis]]
        copied = [
            axis
            for axis in moving
            if axis < len(fact.after)
            and (fact.before[axis], fact.after[axis]) == (before[axis], after[axis])
        ]
        left = [axis for axis in moving if axis not in copied]
        if len(left) > 1:
            return self._shape_vector(tuple(zip(before, after, strict=True)))
        constant = list(after)
        for axis in copied:
            constant[axis] = 0
        for axis in left:
            constant[axis] = -1
        return self._emit_constant(constant)

    def _adapt_expand(self, node: onnx.NodeProto) -> None:
        fact, target = self._facts[node.input[0]], self._facts[node.input[1]]
        before = self._facts.shapes(node, after=False)[node.output[0]][1]
        if target.values is None:
            raise Untraceable(f"the target of Expand {node.name!r} cannot be followed")
        if not np.array_equal(*target.values):
            return  # It follows the sizes already.
        offset = len(before) - len(fact.before)
        after = list(before)
        for axis, size in enumerate(before):
            own = axis - offset
            if own >= 0 and fact.before[own] == size:
                after[axis] = fact.after[own]
            elif size == self._before.length and self._frees_length:
                after[axis] = self._after.length
        if tuple(after) != before:
            node.input[1] = self._shape_vector(tuple(zip(before, after, strict=True)))

    def _repeat_table(self, node: onnx.NodeProto) -> None:
        """Repeat a constant row that is looked up for each row of the batch."""
        table, index = (self._facts[name] for name in node.input)
        if table.is_constant and table.after[0] == 1 and index.after[0] == self._after.batch:
            node.input[0] = self._repeat(node.input[0])

    def _repeat(self, name: str) -> str:
        entries = ((1, self._after.batch), *((size, size) for size in self._facts[name].after[1:]))
        return self._emit("Expand", name, self._shape_vector(entries))

    def _repeat_constants(self, node: onnx.NodeProto) -> None:
        """Repeat the constants that were joined to a batch of one, for each row of the batch."""
        facts = [self._facts[name] for name in node.input]
        rank = len(facts[0].after)
        joined = next(each.i for each in node.attribute if each.name == "axis") % max(rank, 1)
        if rank < 2 or joined == 0 or all(fact.after[0] != self._after.batch for fact in facts):
            return
        for index, fact in enumerate(facts):
            if fact.is_constant and fact.after[0] == 1:
                node.input[index] = self._repeat(node.input[index])

    def _count_from_own_start(self, node: onnx.NodeProto) -> None:
        """Add each text's first row to an index into the rows of all texts.

        With a batch of one that was zero, and the exporter has left it out or folded it.
        """
        rows, index = (self._facts[name] for name in node.input)
        is_flattened = (rows.before[:1], rows.after[:1]) == (
            (self._before.batch * self._before.length,),
            (self._after.batch * self._after.length,),
        )
        if not is_flattened or index.is_constant or index.after != (self._after.batch,):
            return
        scalar = [
            self._emit_constant(np.array(0)),
            self._emit("Squeeze", self._axis_size(0)),
            self._emit_constant(np.array(1)),
        ]
        starts = self._emit("Mul", self._emit("Range", *scalar), self._axis_size(1))
        starts = self._emit("Cast", starts, to=index.element)
        node.input[1] = self._emit("Add", node.input[1], starts)

    def _pick_within_own_row(self, node: onnx.NodeProto) -> None:
        """Pick from each row of the batch by that row's own index.

        With a batch of one the exporter has written pairs of a constant zero and the index.
        """
        rows, index = (self._facts[name] for name in node.input)
        pair = self._makers.get(node.input[1])
        if (
            pair is None
            or pair.op_type != "Concat"
            or len(pair.input) != 2
            or (rows.before[0], rows.after[0]) != (self._before.batch, self._after.batch)
            or index.after != (self._after.batch, 2)
            or not self._facts[pair.input[0]].is_constant
        ):
            return
        node.input[1] = pair.input[1]
        _remove_attribute(node, "batch_dims")
        node.attribute.append(helper.make_attribute("batch_dims", 1))


def _remove_attribute(node: onnx.NodeProto, name: str) -> None:
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def _needed(nodes: list[onnx.NodeProto], outputs: list[str]) -> list[onnx.NodeProto]:
    """Return the nodes that the outputs need, in order."""
    wanted = set(outputs)
    kept = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
