"""Cursors lead to the next page of their own query, and whatever else is sent does no harm."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagedex.core.errors import InvalidRequest
from imagedex.search import ImageTerm, PictureTerm, Query, TextTerm
from imagedex.search.cursors import Cursor
from imagedex.segments import DirectoryIndexFiles, ImageFilter, Manifest
from imagedex.testing.index_files import publish_images, unit_vectors

_QUERY = Query((TextTerm("dogs"),), 5)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return publish_images(DirectoryIndexFiles(tmp_path), {"/a": unit_vectors(1, 4)[0]})


def test_a_cursor_comes_back_as_it_was_given(manifest: Manifest, tmp_path: Path) -> None:
    cursor = Cursor.after(35, _QUERY, tmp_path, manifest)
    text = str(cursor)
    assert Cursor.parse(text) == cursor
    assert (cursor.generation, cursor.offset) == (1, 35)
    assert text.replace("-", "").replace("_", "").isalnum()
    cursor.require_of(replace(_QUERY), tmp_path, manifest)


@pytest.mark.parametrize(
    "other",
    [
        Query((TextTerm("dogs"),), 6),
        Query((TextTerm("dogs "),), 5),
        Query((TextTerm("dogs", 0.5),), 5),
        Query((ImageTerm("dogs"),), 5),
        Query((TextTerm("dogs"),), 5, min_score=0.1),
        Query((TextTerm("dogs"),), 5, duplicate_score=0.98),
        Query((TextTerm("dogs"),), 5, image_filter=ImageFilter(min_bytes=1)),
        Query((PictureTerm("dogs", b""),), 5),
    ],
)
def test_a_cursor_is_refused_with_another_query(
    manifest: Manifest, tmp_path: Path, other: Query
) -> None:
    cursor = Cursor.after(5, _QUERY, tmp_path, manifest)
    with pytest.raises(InvalidRequest, match="very request"):
        cursor.require_of(other, tmp_path, manifest)


def test_a_cursor_is_refused_by_another_index(manifest: Manifest, tmp_path: Path) -> None:
    cursor = Cursor.after(5, _QUERY, tmp_path, manifest)
    later = replace(manifest, created_at=manifest.created_at + timedelta(seconds=1))
    for prefix, other in ((tmp_path / "other", manifest), (tmp_path, later)):
        with pytest.raises(InvalidRequest):
            cursor.require_of(_QUERY, prefix, other)


def test_pictures_are_told_apart_by_their_content(manifest: Manifest, tmp_path: Path) -> None:
    cursor = Cursor.after(5, Query((PictureTerm("aa", b"1"),)), tmp_path, manifest)
    # The same file can be encoded a little differently on another day.
    cursor.require_of(Query((PictureTerm("aa", b"2"),)), tmp_path, manifest)


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda b: base64.b64encode(b).decode()))
def test_nonsense_is_no_cursor(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Cursor.parse(text)


@pytest.mark.parametrize("offset", [0, 10_000, 65_535])
def test_a_made_up_offset_beyond_all_pages_is_refused(offset: int) -> None:
    with pytest.raises(InvalidRequest):
        Cursor.parse(str(Cursor(1, offset, b"x" * 13)))
