"""Near-duplicates are grouped as if each image were compared with each group in turn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from imagedex.search import duplicates
from imagedex.search.duplicates import Group, group
from imagedex.testing.index_files import unit_vectors


def _expected(vectors: NDArray[np.float32], score: float, enough: int) -> tuple[list[Group], bool]:
    groups: list[Group] = []
    for place, vector in enumerate(vectors):
        for number, one in enumerate(groups):
            if float(vectors[one.place] @ vector) >= score - 1e-6:
                groups[number] = Group(one.place, one.images + 1)
                break
        else:
            if len(groups) == enough:
                return groups, True
            groups.append(Group(place, 1))
    return groups, False


@given(
    choices=st.lists(st.integers(0, 11), max_size=60),
    score=st.sampled_from([0.5, 0.9, 0.98, 1.0]),
    enough=st.integers(1, 20),
    at_once=st.sampled_from([1, 3, 256]),
)
def test_groups_are_those_of_the_simplest_way(
    choices: list[int], score: float, enough: int, at_once: int
) -> None:
    pool = unit_vectors(4, 6)
    pool = np.concatenate([pool, pool, pool + 0.02 * unit_vectors(4, 6, seed=3)])
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)
    vectors = pool[choices].reshape(-1, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_AT_ONCE", at_once)
        found = group(
            len(vectors), lambda start, end: vectors[start:end], score=score, enough=enough
        )
    assert found == _expected(vectors, score, enough)


def test_equal_vectors_are_alike_whatever_is_asked_for() -> None:
    vectors = np.repeat(unit_vectors(3, 387), 5, axis=0)
    groups, _ = group(15, lambda start, end: vectors[start:end], score=1.0, enough=10)
    assert groups == [Group(0, 5), Group(5, 5), Group(10, 5)]


def test_knowing_more_of_a_ranking_changes_nothing() -> None:
    vectors = np.repeat(unit_vectors(40, 8), 2, axis=0)
    found = [
        group(count, lambda start, end: vectors[start:end], score=0.999, enough=10)
        for count in (21, 22, 80)
    ]
    assert found[0] == found[1] == found[2]
