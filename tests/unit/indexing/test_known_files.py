"""Known files are told from new and changed ones in whatever order they are met."""

from __future__ import annotations

import random

import pytest

from imagedex.catalog import Outline
from imagedex.indexing.known_files import KnownFiles

_PATHS = [f"/p/{number:03}.jpg" for number in range(500)]


def outlines() -> list[Outline]:
    return [
        Outline(
            image_paths=_PATHS[start : start + 100],
            sizes=list(range(start, start + 100)),
            mtimes_ns=[10**18 + number for number in range(start, start + 100)],
            is_indexed=[1] * 100,
        )
        for start in range(0, 500, 100)
    ]


@pytest.mark.parametrize("order", ["as they are known", "backwards", "at random"])
def test_files_are_found_in_any_order(order: str) -> None:
    known = KnownFiles(outlines())
    numbers = list(range(500))
    if order == "backwards":
        numbers.reverse()
    elif order == "at random":
        random.Random(1).shuffle(numbers)
    for start in range(0, 450, 90):
        some = numbers[start : start + 90]
        paths = [_PATHS[number] for number in some]
        paths.insert(40, "/p/new.jpg")
        sizes = [number + (number == some[50]) for number in some]
        sizes.insert(40, 1)
        mtimes = [10**18 + number for number in some]
        mtimes.insert(40, 1)
        unchanged = known.are_unchanged(paths, sizes, mtimes)
        assert [paths[place] for place in (~unchanged).nonzero()[0]] == [
            "/p/new.jpg",
            _PATHS[some[50]],
        ]
    assert sorted(known.not_met(outlines())) == sorted(_PATHS[number] for number in numbers[450:])


def test_nothing_is_known_of_an_empty_catalog() -> None:
    known = KnownFiles([])
    assert not known.are_unchanged(["/p/a.jpg"], [1], [1]).any()
    assert list(known.not_met([])) == []
