"""A body's structure is counted right, however it arrives, and only until it is too much."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagedex.api.body_shape import BodyShape
from imagedex.api.problems import BODY_TOO_COMPLEX, ProblemError

# Texts that look like structure, and rows of what escapes it.
texts = st.text(st.sampled_from('",:[]{}\\/nué\n🐕'), max_size=8)
documents = st.recursive(
    texts | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def _counts(document: Any) -> tuple[int, int]:
    """Return the entries and the fields of a parsed document, counted another way."""
    if not isinstance(document, dict | list):
        return 0, 0
    inner = document.values() if isinstance(document, dict) else document
    counts = [_counts(one) for one in inner]
    return (
        max(1, len(document)) + sum(entries for entries, _ in counts),
        len(document) * isinstance(document, dict) + sum(fields for _, fields in counts),
    )


def _is_refused(pieces: Iterable[bytes], *, max_entries: int, max_fields: int) -> bool:
    shape = BodyShape(max_entries=max_entries, max_fields=max_fields)
    try:
        for piece in pieces:
            shape.feed(piece)
    except ProblemError as error:
        return error.problem is BODY_TOO_COMPLEX
    return False


@given(
    document=documents,
    is_plain_ascii=st.booleans(),
    indent=st.none() | st.integers(0, 2),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_entries_and_fields_are_counted_however_the_body_is_cut(
    document: Any, is_plain_ascii: bool, indent: int | None, cuts: list[int]
) -> None:
    content = json.dumps(document, ensure_ascii=is_plain_ascii, indent=indent).encode()
    ends = [0, *sorted(cuts), len(content)]
    pieces = [content[start:end] for start, end in itertools.pairwise(ends)]
    bytewise = [content[place : place + 1] for place in range(len(content))]
    entries, fields = _counts(document)
    for way in (pieces, bytewise):
        assert not _is_refused(way, max_entries=entries, max_fields=fields)
        assert entries == 0 or _is_refused(way, max_entries=entries - 1, max_fields=fields)
        assert fields == 0 or _is_refused(way, max_entries=entries, max_fields=fields - 1)


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"1,", b'"",', b'""', b'{"a":', b"["])
def test_small_values_are_too_many_within_64_kib(unit: bytes) -> None:
    # Those of the call that reads most.
    assert _is_refused([b"[", unit * (64 * 1024 // len(unit))], max_entries=10_400, max_fields=100)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_what_is_no_json_is_left_to_the_parser(pieces: list[bytes]) -> None:
    assert not _is_refused(pieces, max_entries=1000, max_fields=1000)
