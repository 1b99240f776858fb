"""Near-duplicates, of which only the best is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 256
_ROUNDING = 1e-6  # Of products in float32: equal vectors are alike whatever is asked for.


@dataclass(frozen=True, slots=True)
class Group:
    """An image and those after it that are much like it."""

    place: int  # Of the best of them in the ranking, from 0.
    images: int  # How many they are.


def group(
    count: int,
    vectors: Callable[[int, int], NDArray[np.float32]],
    *,
    score: float,
    enough: int,
) -> tuple[list[Group], bool]:
    """Group a ranking of ``count`` images; say whether there are more groups than ``enough``.

    An image joins the first group whose best one it resembles by ``score`` (cosine) or more, or
    begins a group. The ranking is read up to where group ``enough`` + 1 begins, so that its
    being known further changes nothing. ``vectors`` gives those of a part of the ranking, from a
    place up to another: float32 of shape (n, dim), of unit length.
    """
    groups: list[Group] = []
    heads: list[NDArray[np.float32]] = []
    least = score - _ROUNDING
    for start in range(0, count, _AT_ONCE):
        block = vectors(start, min(start + _AT_ONCE, count))
        old = block @ np.stack(heads).T >= least if heads else np.zeros((len(block), 0), dtype=bool)
        inner = block @ block.T >= least
        new: list[int] = []  # Places in the block where groups begin.
        for i in range(len(block)):
            # Those before the block first, since they are ranked higher.
            like = np.flatnonzero(np.concatenate([old[i], inner[i, new]]))
            if len(like):
                found = groups[like[0]]
                groups[like[0]] = Group(found.place, found.images + 1)
                continue
            if len(groups) == enough:
                return groups, True
            groups.append(Group(start + i, 1))
            heads.append(block[i])
            new.append(i)
    return groups, False
