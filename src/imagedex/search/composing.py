"""One direction out of several texts and images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import InvalidRequest

# Unit vectors in float32 that cancel each other out leave less than this.
_SHORTEST = 1e-5


def composed(
    vectors: Sequence[NDArray[np.float32]], weights: Sequence[float]
) -> NDArray[np.float32]:
    """Return the weighted sum of unit vectors, each float32 of shape (dim,), at unit length.

    A single vector with a weight above 0 comes back as it is. Raises InvalidRequest when the sum
    has no direction, since the terms cancel each other out.
    """
    if len(vectors) == 1 and weights[0] > 0:
        return vectors[0]
    total = np.asarray(weights, dtype=np.float64) @ np.stack(vectors).astype(np.float64)
    length = float(np.linalg.norm(total))
    if length < _SHORTEST:
        raise InvalidRequest(
            "The terms cancel each other out, so that nothing is left to look for; change their "
            "weights, or leave one out."
        )
    return (total / length).astype(np.float32)
