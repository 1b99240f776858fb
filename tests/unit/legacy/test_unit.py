"""Vectors made fit to be stored."""

from __future__ import annotations

import numpy as np

from imagedex.legacy.unit import to_unit
from support.old_indexes import unit_vectors


def test_unit_vectors_stay_bit_by_bit() -> None:
    vectors = unit_vectors(100, 768)
    found = to_unit(vectors)
    assert found.is_usable.all()
    assert not found.is_scaled.any()
    np.testing.assert_array_equal(found.vectors, vectors)


def test_other_lengths_are_scaled_also_those_that_float32_cannot_square() -> None:
    vectors = unit_vectors(4, 8)
    lengths = np.array([[2.0], [1e-6], [1e30], [1.001]], dtype=np.float32)
    found = to_unit(vectors * lengths)
    assert found.is_scaled.all()
    assert found.is_usable.all()
    np.testing.assert_allclose(found.vectors, vectors, atol=1e-6)


def test_what_has_no_direction_is_told() -> None:
    vectors = unit_vectors(4, 8)
    vectors[0] = 0
    vectors[1, 2] = np.nan
    vectors[2, 5] = -np.inf
    found = to_unit(vectors)
    assert found.is_usable.tolist() == [False, False, False, True]
    assert not found.is_scaled.any()
