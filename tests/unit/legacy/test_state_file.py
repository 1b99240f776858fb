"""The old scripts' state file, read and written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from imagedex.core.errors import InvalidRequest, StorageError
from imagedex.core.images import FileStamp
from imagedex.legacy.state_file import OldImage, WrittenImage, encode_state, read_state

MOMENT = datetime(2025, 11, 14, 12, 34, 56, tzinfo=UTC)
MTIME_NS = 1_700_000_000_123_456_789


def written(file: Path, document: Any) -> Path:
    file.write_text(json.dumps(document), "utf-8")
    return file


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "old.state.json"
    stamp = FileStamp(1234, MTIME_NS)
    images = [WrittenImage("/photos/ä.jpg", stamp, 0), WrittenImage("b.jpg", stamp, 1)]
    file.write_bytes(encode_state(images, indexed_at=MOMENT, failed=["/photos/bad.jpg"]))
    assert json.loads(file.read_text("utf-8")) == {
        "version": "1.0",
        "last_full_index": "2025-11-14T12:34:56.000Z",
        "total_images": 2,
        "indexed_images": {
            path: {
                "indexed_at": "2025-11-14T12:34:56.000Z",
                "file_mtime": 1_700_000_000.123456789,
                "file_size": 1234,
                "index_position": position,
            }
            for position, path in enumerate(["/photos/ä.jpg", "b.jpg"])
        },
        "pending_queue": [],
        "failed_images": ["/photos/bad.jpg"],
    }
    state = read_state(file)
    assert (state.pending, state.failed) == (0, 1)
    assert state.images["b.jpg"].index_position == 1
    assert all(image.is_of(stamp) for image in state.images.values())
    file.write_bytes(encode_state([], indexed_at=MOMENT))
    assert read_state(file).images == {}


@pytest.mark.parametrize(
    ("mtime", "size", "is_of"),
    [
        (MTIME_NS / 1e9, 1234, True),
        (1_700_000_000.123, 1234, True),
        (1_700_000_000, 1234, True),
        (1_700_000_001.5, 1234, False),
        (1_600_000_000, 1234, False),
        (MTIME_NS / 1e9, 1235, False),
        (None, 1234, True),
        (None, None, True),
    ],
)
def test_a_file_is_known_again_by_size_and_mtime(
    mtime: float | None, size: int | None, is_of: bool
) -> None:
    assert OldImage(0, mtime, size).is_of(FileStamp(1234, MTIME_NS)) is is_of


def test_queue_and_failures_are_counted_whatever_they_hold(tmp_path: Path) -> None:
    document = {"indexed_images": {}, "pending_queue": ["a", "b"], "failed_images": {"c": "why"}}
    state = read_state(written(tmp_path / "state.json", document))
    assert (state.pending, state.failed) == (2, 1)


@pytest.mark.parametrize(
    "document",
    [[], {}, {"indexed_images": []}, 7],
    ids=str,
)
def test_another_document_is_refused(tmp_path: Path, document: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"no object 'indexed_images'.*--state"):
        read_state(written(tmp_path / "state.json", document))


@pytest.mark.parametrize(
    "image",
    [
        7,
        {"index_position": "0"},
        {"index_position": True},
        {"file_mtime": "2025-11-14"},
        {"file_mtime": float("nan")},
        {"file_mtime": 10**400},
        {"file_size": 1.5},
    ],
    ids=str,
)
def test_a_field_of_another_type_is_refused_with_the_path(tmp_path: Path, image: Any) -> None:
    document = {"indexed_images": {"/photos/a.jpg": image}}
    with pytest.raises(InvalidRequest, match=r"'/photos/a\.jpg'"):
        read_state(written(tmp_path / "state.json", document))


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no state file"):
        read_state(tmp_path / "state.json")
    for data in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        (tmp_path / "state.json").write_bytes(data)
        with pytest.raises(InvalidRequest, match="not JSON"):
            read_state(tmp_path / "state.json")
    with pytest.raises(StorageError, match="Could not read"):
        read_state(tmp_path)
