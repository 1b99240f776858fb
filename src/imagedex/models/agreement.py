"""How far vectors of one precision agree with those of float32 of the same pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from imagedex.embedding import VectorArray

NEIGHBOURS: Final = 10
_ROWS_AT_ONCE: Final = 1024
"""Queries that are scored together, so that memory does not grow with the square of the images."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a change of precision does to the vectors, and to the answers, of some pictures."""

    images: int
    mean_cosine: float  # Of each picture's two vectors.
    min_cosine: float
    # Each picture in turn is the query and all others are the index: the mean share of its ten
    # nearest in float32 that are among its ten nearest in the precision. None below eleven.
    top10: float | None


def compare(reference: VectorArray, other: VectorArray) -> Agreement:
    """Compare two sets of unit vectors, shape (n_images, dim), n_images >= 1, row by row.

    ``reference`` are those in float32. Raises ValueError when the shapes differ or are empty.
    """
    if reference.shape != other.shape or len(reference) == 0:
        raise ValueError(
            f"Two sets of vectors of the same pictures are compared, not {reference.shape} and "
            f"{other.shape}."
        )
    cosines = np.einsum("nd,nd->n", reference, other, dtype=np.float64)
    return Agreement(
        images=len(reference),
        mean_cosine=float(cosines.mean()),
        min_cosine=float(cosines.min()),
        top10=_shared_neighbours(reference, other) if len(reference) > NEIGHBOURS else None,
    )


def _shared_neighbours(reference: VectorArray, other: VectorArray) -> float:
    shared = 0
    for start in range(0, len(reference), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        for near, near_too in zip(_nearest(reference, rows), _nearest(other, rows), strict=True):
            shared += len(np.intersect1d(near, near_too, assume_unique=True))
    return shared / (NEIGHBOURS * len(reference))


def _nearest(vectors: VectorArray, rows: slice) -> np.ndarray[tuple[int, int], np.dtype[np.intp]]:
    """Return the ten nearest of each of ``rows``, itself left out; of equals, the first."""
    scores = vectors[rows] @ vectors.T
    positions = np.arange(len(scores))
    scores[positions, positions + rows.start] = -np.inf
    # A stable sort, as index and query are the same in both sets: copies of one picture, which
    # folders are full of, must not make the sets differ by how ties happen to fall.
    return np.argsort(-scores, axis=1, kind="stable")[:, :NEIGHBOURS]
