"""Globs of paths mean what they say, and nothing hostile makes them slow or wrong."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from imagedex.core.errors import InvalidRequest
from imagedex.segments._parquet import PathColumn

_PATHS = [
    "/photos/2024/a.jpg",
    "/photos/2024/b.PNG",
    "/photos/2024b/c.jpg",
    "/photos/2024/deep/er/d.jpg",
    "/photos/[x]/e+f.jpg",
    "/photos/2024",
    "/photos/new\nline.jpg",
    "/photos/ü.jpg",
]


def _matching(*globs: str) -> list[str]:
    column = PathColumn(pa.array(_PATHS))
    marked = column.matching(globs, np.arange(len(_PATHS)))
    return [path for path, is_marked in zip(_PATHS, marked, strict=True) if is_marked]


@pytest.mark.parametrize(
    ("glob", "numbers"),
    [
        ("*.jpg", [0, 2, 3, 4, 6, 7]),
        ("a.jpg", [0]),
        ("A.jpg", []),
        ("?.jpg", [0, 2, 3, 7]),
        ("*.[jJ][pP][gG]", [0, 2, 3, 4, 6, 7]),
        ("[!a].jpg", [2, 3, 7]),
        ("[a-c].*", [0, 1, 2]),
        ("2024", [5]),
        ("2024/*", [0, 1, 3]),
        ("2024*/*", [0, 1, 2, 3]),
        ("024/*", []),
        ("/photos/2024/*.jpg", [0, 3]),
        ("/2024/*", []),
        ("*/deep/*", [3]),
        ("[[]x]/*", [4]),
        ("e+f.jpg", [4]),
        ("[x", []),
        ("new?line.jpg", [6]),
        ("*", list(range(8))),
        ("\\", []),
        ("ü.*", [7]),
        ("", []),
    ],
)
def test_a_glob_matches(glob: str, numbers: list[int]) -> None:
    assert _matching(glob) == [_PATHS[number] for number in numbers]


def test_one_of_several_globs_is_enough() -> None:
    assert _matching("a.jpg", "b.*") == _PATHS[:2]


def test_a_glob_that_cannot_be_understood_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"\[z-a\]"):
        _matching("[z-a].jpg")


def test_hostile_globs_take_no_longer_than_others() -> None:
    column = PathColumn(pa.array(["/" + "a" * 4000]))
    for glob in ("*a" * 500 + "b", "?" * 1000, "[" * 1000, "[!" * 500, "]" * 1000):
        try:
            assert not column.matching([glob], np.arange(1))[0]
        except InvalidRequest:
            continue  # Refused is as good.


def test_globs_that_would_take_minutes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagedex.segments._parquet._GLOB_SECONDS", 0.01)
    chance = random.Random(1)
    names = ("".join(chance.choices("abcdefgh", k=60)) for _ in range(5_000))
    column = PathColumn(pa.array([f"/photos/beach/{name}.jpg" for name in names]))
    rows = np.arange(5_000)
    # RE2 falls back to a slower way for it, 60 microseconds a path instead of 0.5.
    hostile = "/*[abc]????????????????????[abc]*[de]????????????????????q"
    with pytest.raises(InvalidRequest, match="too long to be held"):
        column.matching([hostile, "*.jpg"], rows)
    assert column.matching(["/*beach*", "*holiday*"], rows).all()


@pytest.mark.parametrize(
    ("prefix", "numbers"),
    [
        ("/photos/2024", [0, 1, 3, 5]),
        ("/photos/2024/", [0, 1, 3, 5]),
        ("/photos/2024/a.jpg", [0]),
        ("/photos/20", []),
        ("/", list(range(8))),
        ("/photos/[x]", [4]),
    ],
)
def test_a_prefix_ends_where_a_name_ends(prefix: str, numbers: list[int]) -> None:
    marked = PathColumn(pa.array(_PATHS)).below(prefix)
    assert np.flatnonzero(marked).tolist() == numbers
