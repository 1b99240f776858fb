"""The ways in which a baked target of a reshape can be read at another size.

A batch of one leaves no trace in a shape, so that there can be several: (1, 77, 4, 12) that became
(77, 48) can have been (length, batch x width) or (length x batch, width).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from imagedex.models._onnx_shapes import Fact, Shape, Sizes, Untraceable

_Signature = tuple[Shape, Shape, Shape]


@dataclass
class Readings:
    """Which reading was taken of each ambiguous target; steps through all combinations.

    The same question has the same answer all over the graph, since its layers are alike.
    """

    counts: dict[_Signature, int] = field(default_factory=dict)
    taken: dict[_Signature, int] = field(default_factory=dict)

    def take(self, signature: _Signature, count: int) -> int:
        """Return which of ``count`` readings is taken for what this signature asks."""
        self.counts[signature] = count
        return self.taken.setdefault(signature, 0)

    def step(self) -> bool:
        """Go on to the next combination; the last question is answered anew first."""
        while self.taken:
            signature, index = next(reversed(self.taken.items()))
            if index + 1 < self.counts[signature]:
                self.taken[signature] = index + 1
                return True
            del self.taken[signature]
        return False


def reshaped(
    fact: Fact, before: Shape, *, sizes_before: Sizes, sizes_after: Sizes
) -> Iterator[Shape]:
    """Yield what ``before``, the baked shape after a reshape, can be at the other size.

    A reshape keeps the order of all elements. So the length stays where it was in that order,
    and a batch of one goes to where it was: to an axis of size 1 there, else to the axis that
    follows as its outer part, else to the one before as its inner part.
    """
    starts = list(itertools.accumulate(before, lambda left, right: left * right, initial=1))
    moves: list[list[tuple[int, int, int]]] = []  # For each: (axis, size before, size after)
    start = 1
    for old, new in zip(fact.before, fact.after, strict=True):
        if old != new:
            batch, length = _factors(old, new, sizes_before, sizes_after)
            end = start * old
            for factor, was, becomes in (
                (length, sizes_before.length, sizes_after.length),
                (batch and sizes_before.batch > 1, sizes_before.batch, sizes_after.batch),
            ):
                if factor:
                    axes = [
                        axis
                        for axis, size in enumerate(before)
                        if size % was == 0 and starts[axis] < end and starts[axis + 1] > start
                    ]
                    moves.append([(axis, was, becomes) for axis in axes])
            if batch and sizes_before.batch == 1:
                places = [start, *(each for each in starts if start < each < end), end]
                axes = list(dict.fromkeys(_axes_at(places, before, starts)))
                moves.append([(axis, sizes_before.batch, sizes_after.batch) for axis in axes])
        start *= old
    for chosen in itertools.product(*moves):
        after = list(before)
        for axis, old, new in chosen:
            after[axis] = after[axis] // old * new
        if math.prod(after) == math.prod(fact.after):
            yield tuple(after)


def _factors(old: int, new: int, before: Sizes, after: Sizes) -> tuple[bool, bool]:
    """Return whether the batch and the length are part of an axis that has changed."""
    for batch, length in ((True, False), (False, True), (True, True)):
        left = new * (before.batch if batch else 1) * (before.length if length else 1)
        if left == old * (after.batch if batch else 1) * (after.length if length else 1):
            return batch, length
    raise Untraceable(f"an axis of {old} is in no ratio to the batch and the length")


def _axes_at(places: list[int], shape: Shape, starts: list[int]) -> Iterator[int]:
    """Yield the axes that can hold a batch of one that lies at one of ``places``, likely first.

    A place is a number of elements within the first row, at which an axis ends and another starts.
    """
    axes = [(axis, starts[axis], starts[axis + 1]) for axis in range(len(shape))]
    yield from (axis for axis, start, end in axes if start in places and start == end)
    yield from (axis for axis, start, end in axes if start in places and start != end)
    yield from (axis for axis, start, end in axes if end in places and start != end)
    yield from (axis for axis, start, end in axes if any(start < each < end for each in places))


def shape_after_reshape(shape: Shape, target: list[int]) -> Shape | None:
    """Return the shape that a reshape gives, or None where it fails."""
    sizes = [
        shape[axis] if size == 0 and axis < len(shape) else size for axis, size in enumerate(target)
    ]
    whole = math.prod(shape)
    if -1 in sizes:
        rest = math.prod(size for size in sizes if size != -1)
        if rest <= 0 or whole % rest:
            return None
        sizes[sizes.index(-1)] = whole // rest
    return tuple(sizes) if math.prod(sizes) == whole else None
