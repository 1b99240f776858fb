"""How agreement with float32 is counted."""

from __future__ import annotations

import numpy as np
import pytest

from imagedex.embedding import VectorArray
from imagedex.models.agreement import compare


def unit_vectors(count: int, dim: int = 16, seed: int = 0) -> VectorArray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    unit: VectorArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def counted_one_by_one(reference: VectorArray, other: VectorArray) -> float:
    shares = []
    for row in range(len(reference)):
        best = []
        for vectors in (reference, other):
            scores = vectors @ vectors[row]
            ranked = [int(each) for each in np.argsort(-scores) if each != row]
            best.append(set(ranked[:10]))
        shares.append(len(best[0] & best[1]) / 10)
    return float(np.mean(shares))


def test_equal_vectors_agree_in_everything() -> None:
    vectors = unit_vectors(50)
    agreement = compare(vectors, vectors.copy())
    assert agreement.images == 50
    assert agreement.mean_cosine == pytest.approx(1.0)
    assert agreement.min_cosine == pytest.approx(1.0)
    assert agreement.top10 == 1.0


def test_cosines_are_those_of_each_picture_with_itself() -> None:
    reference = unit_vectors(20)
    other = reference.copy()
    other[3] = -other[3]
    agreement = compare(reference, other)
    assert agreement.min_cosine == pytest.approx(-1.0)
    assert agreement.mean_cosine == pytest.approx(18 / 20)


@pytest.mark.parametrize("count", [11, 40, 1100])
def test_top_ten_agreement_is_what_counting_one_by_one_gives(count: int) -> None:
    reference = unit_vectors(count)
    noisy = reference + 0.3 * unit_vectors(count, seed=1)
    other = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    top10 = compare(reference, other).top10
    assert top10 is not None
    assert top10 == pytest.approx(counted_one_by_one(reference, other))


def test_vectors_without_relation_share_what_chance_gives() -> None:
    top10 = compare(unit_vectors(400), unit_vectors(400, seed=1)).top10
    assert top10 is not None
    assert top10 < 0.1  # 10 of 399 by chance.


def test_copies_of_one_picture_do_not_count_as_disagreement() -> None:
    reference = np.repeat(unit_vectors(1), 30, axis=0)
    assert compare(reference, np.repeat(unit_vectors(1, seed=1), 30, axis=0)).top10 == 1.0


def test_ten_nearest_need_eleven_pictures() -> None:
    assert compare(unit_vectors(10), unit_vectors(10)).top10 is None


def test_sets_of_different_pictures_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="same pictures"):
        compare(unit_vectors(3), unit_vectors(4))
    with pytest.raises(ValueError, match="same pictures"):
        compare(unit_vectors(0), unit_vectors(0))
