"""Text of others on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagedex.cli.text import byte_size, count_of, duration, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/photos/park.jpg", "/photos/park.jpg"),
        ("/Fotos/Größe 東京 🐈.png", "/Fotos/Größe 東京 🐈.png"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("two\nlines\r\tand a tab", r"two\nlines\r\tand a tab"),
        ("c1 \x9b31m", r"c1 \x9b31m"),
        ("gpj.\u202etxt", r"gpj.\u202etxt"),
        ("not utf-8 \udcff", r"not utf-8 \udcff"),
        ("line\u2028separator", r"line\u2028separator"),
        ("[bold red]markup[/]", "[bold red]markup[/]"),
    ],
)
def test_whatever_a_terminal_could_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_shown_text_is_one_line_that_can_be_encoded(text: str) -> None:
    shown = printable(text)

    assert len(shown.splitlines()) <= 1
    assert shown.encode().decode() == shown
    assert "\x1b" not in shown


def test_counts_agree_with_their_noun() -> None:
    assert count_of(1, "image") == "1 image"
    assert count_of(0, "image") == "0 images"
    assert count_of(118_323, "image") == "118,323 images"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (59.97, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_durations_are_told_in_two_units_at_most(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 KB"),
        (2_000_000_000, "2.0 GB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_sizes_are_told_in_powers_of_a_thousand(size: int, shown: str) -> None:
    assert byte_size(size) == shown
