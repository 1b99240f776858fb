"""Globs of paths mean what they say, and nothing hostile makes them slow or wrong."""

from __future__ import annotations

import random
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, event, example, given, reject, settings
from hypothesis import strategies as st

from imagedex.core.errors import InvalidRequest
from imagedex.ingest.ignoring import IgnoreRules
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
        ("2024[!b]a.jpg", []),
        ("2024[+-0]a.jpg", []),
        ("photos?2024[!b]a.jpg", []),
        ("2024[!b]?/*", []),
        ("2024[+-0b]*/c.jpg", [2]),
        ("/photos[!b]2024", [5]),
        ("/photos[+-0]2024", [5]),
    ],
)
def test_a_glob_matches(glob: str, numbers: list[int]) -> None:
    assert _matching(glob) == [_PATHS[number] for number in numbers]


_ASCII = st.sampled_from([chr(code) for code in range(1, 128)])

# What may stand for a character in a glob: most match it, some fall short of it.
_PARTS = st.sampled_from(
    ["{it}", "?", "*", "[!{one}]", "[{first}-{last}]", "[!{first}-{last}]", "[{one}{first}-{last}]"]
)


@st.composite
def _paths_and_globs(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a path, and a glob without ``/`` that often matches its end if ``/`` is a letter."""
    part = st.tuples(_ASCII | st.just("/"), _PARTS, _ASCII, _ASCII)
    drawn = draw(st.lists(part, min_size=1, max_size=8))
    globs = [
        part.format(it=it, one=one, first=min(it, one), last=max(it, other))
        for it, part, one, other in drawn[draw(st.integers(0, len(drawn) - 1)) :]
    ]
    path = "/" + "".join(it for it, _, _, _ in drawn)
    return path, "".join("?" if "/" in glob else glob for glob in globs)


@settings(max_examples=200, deadline=None)
@given(_paths_and_globs())
@example(("/a/b", "a[!c]b"))
@example(("/a/b", "a[+-0]b"))
@example(("/a/b", "a[!+-.]b"))
@example(("/2024/-", "[--0]"))
def test_a_glob_without_slash_says_of_names_what_it_says_to_scans(
    path_and_glob: tuple[str, str],
) -> None:
    path, glob = path_and_glob
    assume(glob not in {"", ".."})  # What no scan could be told.
    name = path.rpartition("/")[2]
    try:
        is_marked = PathColumn(pa.array([path])).matching([glob], np.arange(1))[0]
    except InvalidRequest:  # Parts that together are a range from a later character on.
        reject()
    event(f"marked: {is_marked}")
    assert is_marked == fnmatchcase(name, glob)
    assert is_marked == IgnoreRules((glob,)).passes_over(name, "")


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
