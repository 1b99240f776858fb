"""Vectors as an index stores them: finite, of unit length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Rounding to float32 leaves a length this near to 1. Such a vector is taken bit by bit, so that
# its scores are those of the old index.
UNIT_TOLERANCE = 1e-5
_SHORTEST = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class UnitVectors:
    """Some vectors, made fit to be stored."""

    vectors: NDArray[np.float32]  # Shape (n, dim); rows of unit length where usable.
    is_usable: NDArray[np.bool_]  # Shape (n,): false for zero and for what is not finite.
    is_scaled: NDArray[np.bool_]  # Shape (n,): its length was another one.


def to_unit(vectors: NDArray[np.float32]) -> UnitVectors:
    """Scale rows that are not of unit length, and tell those that have no direction."""
    exact = vectors.astype(np.float64)
    lengths = np.sqrt(np.square(exact).sum(axis=1))
    is_usable = np.isfinite(lengths) & (lengths > _SHORTEST)
    is_scaled = is_usable & (np.abs(lengths - 1) > UNIT_TOLERANCE)
    scaled = vectors.astype(np.float32, copy=True)
    scaled[is_scaled] = exact[is_scaled] / lengths[is_scaled, np.newaxis]
    return UnitVectors(scaled, is_usable, is_scaled)
