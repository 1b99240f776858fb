"""Which segments are merged, and when."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from imagedex.indexing.merging import MergePolicy, due_segments
from imagedex.segments import FileEntry, Manifest, SegmentEntry, TombstoneEntry

_FILE = FileEntry("x", 1, "a" * 64)
_POLICY = MergePolicy(max_deltas=3, rebuild_share=0.1, rebuild_rows=50)


def _manifest(*rows: int, gone: int = 0) -> Manifest:
    segments = tuple(
        SegmentEntry(number, number, count, _FILE, _FILE, "job", ())
        for number, count in enumerate(rows, start=1)
    )
    return Manifest(
        generation=9,
        fence=1,
        model_name="m",
        fingerprint="f",
        dim=3,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        images=sum(rows) - gone,
        next_segment=len(rows) + 1,
        segments=segments,
        tombstones=(TombstoneEntry(9, _FILE, gone),) if gone else (),
    )


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (_manifest(), set()),
        (_manifest(1000), set()),
        (_manifest(1000, 30, 30, 30), set()),
        (_manifest(10, 30, 1000, 30, 20), {1, 2, 4, 5}),
        (_manifest(1000, 101), {1, 2}),
        (_manifest(1000, 100), set()),
        (_manifest(1000, gone=101), {1}),
        (_manifest(1000, 60, gone=41), {1, 2}),
        (_manifest(10, 10, 10), set()),
        (_manifest(10, 10, 10, 10, 10), {2, 3, 4, 5}),
        (_manifest(1000, 1, 40, 1, 1), {2, 4, 5}),
    ],
)
def test_segments_are_merged_when_they_are_many_or_much_has_changed(
    manifest: Manifest, expected: set[int]
) -> None:
    assert due_segments(manifest, _POLICY) == expected
