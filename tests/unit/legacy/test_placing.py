"""Which image a row of an old index is of."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.core.errors import InvalidRequest
from imagedex.core.images import FailureReason
from imagedex.ingest import ImageRoots
from imagedex.legacy.placing import place_rows, written_path

ROOTS = ImageRoots(["/photos"])


def test_absolute_paths_are_taken_as_they_are() -> None:
    placed = place_rows(["/photos/a.jpg", "/photos/x/../b.jpg", "//photos/c.jpg"], ROOTS, root=None)
    assert placed.row_of == {"/photos/a.jpg": 0, "/photos/b.jpg": 1, "/photos/c.jpg": 2}
    assert (placed.failures, placed.duplicates) == ([], 0)


def test_relative_paths_are_below_the_root() -> None:
    placed = place_rows(["a.jpg", "./x/b.jpg"], ROOTS, root=Path("/photos/old"))
    assert list(placed.row_of) == ["/photos/old/a.jpg", "/photos/old/x/b.jpg"]
    with pytest.raises(InvalidRequest, match=r"row 1: 'a\.jpg'.*--root"):
        place_rows(["/photos/b.jpg", "a.jpg"], ROOTS, root=None)


def test_rows_outside_the_image_roots_are_failures() -> None:
    paths = ["/etc/passwd", "../../etc/shadow", "/photos/../secret.jpg", "/photos/a.jpg"]
    placed = place_rows(paths, ROOTS, root=Path("/photos/old"))
    assert placed.row_of == {"/photos/a.jpg": 3}
    assert [(f.image_path, f.reason) for f in placed.failures] == [
        ("/etc/passwd", FailureReason.OUTSIDE_ROOTS),
        ("/etc/shadow", FailureReason.OUTSIDE_ROOTS),
        ("/secret.jpg", FailureReason.OUTSIDE_ROOTS),
    ]


def test_rows_without_a_path_are_failures_that_name_the_row() -> None:
    placed = place_rows([None, "", "/photos/\0", "/photos/a.jpg"], ROOTS, root=None)
    assert [failure.image_path for failure in placed.failures] == ["row 0", "row 1", "row 2"]
    assert {failure.reason for failure in placed.failures} == {FailureReason.BAD_ROW}


def test_of_rows_with_one_path_the_last_counts_and_the_order_of_rows_stays() -> None:
    paths = ["/photos/a.jpg", "/photos/b.jpg", "/photos/./a.jpg", "/photos/c.jpg"]
    placed = place_rows(paths, ROOTS, root=None)
    assert list(placed.row_of.items()) == [
        ("/photos/b.jpg", 1),
        ("/photos/a.jpg", 2),
        ("/photos/c.jpg", 3),
    ]
    assert placed.duplicates == 1


def test_a_path_is_written_as_it_was_read() -> None:
    assert written_path("/photos/old/x/a.jpg", Path("/photos/old")) == "x/a.jpg"
    assert written_path("/photos/older/a.jpg", Path("/photos/old")) == "/photos/older/a.jpg"
    assert written_path("/photos/a.jpg", None) == "/photos/a.jpg"
