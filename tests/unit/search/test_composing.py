"""One direction out of several."""

from __future__ import annotations

import numpy as np
import pytest

from imagedex.core.errors import InvalidRequest
from imagedex.search.composing import composed
from imagedex.testing.index_files import unit_vectors

_A, _B = unit_vectors(2, 8)


def test_a_single_vector_stays_as_it_is_to_the_last_bit() -> None:
    assert composed([_A], [0.3]) is _A


def test_a_weighted_sum_has_unit_length_and_its_direction() -> None:
    found = composed([_A, _B], [1.0, -0.25])
    assert found.dtype == np.float32
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-6)
    expected = _A.astype(np.float64) - 0.25 * _B
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-6)


def test_a_single_negative_term_asks_for_the_opposite() -> None:
    np.testing.assert_allclose(composed([_A], [-0.5]), -_A, atol=1e-6)


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.5, -0.5]])
def test_terms_that_cancel_each_other_out_have_no_direction(weights: list[float]) -> None:
    with pytest.raises(InvalidRequest, match="cancel"):
        composed([_A, _A.copy()], weights)
