from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.lock_file import (
    LOCK_FILE,
    LockedFile,
    LockedSource,
    LockedTextAxis,
    LockFile,
)

LOCK = LockFile(
    name="clip-ViT-L-14",
    sources=(LockedSource("owner/name", "a" * 40), LockedSource("owner/other", "b" * 40)),
    files=(LockedFile("visual/model.onnx", 12, "c" * 64, 1_700_000_000_123_456_789),),
    text_axis=LockedTextAxis(is_dynamic=False, reason="the graph attends to padding"),
)


@pytest.mark.parametrize("lock", [LOCK, LockFile("mine", (), ())])
def test_what_is_written_is_read_again(tmp_path: Path, lock: LockFile) -> None:
    (tmp_path / LOCK_FILE).write_text(lock.to_json())
    assert LockFile.read(tmp_path) == lock


def test_the_file_says_what_outsiders_rely_on() -> None:
    content = json.loads(LOCK.to_json())
    assert content["name"] == "clip-ViT-L-14"
    assert content["sources"][0] == {"repo": "owner/name", "revision": "a" * 40}
    assert content["files"] == [
        {
            "path": "visual/model.onnx",
            "bytes": 12,
            "sha256": "c" * 64,
            "mtime_ns": 1_700_000_000_123_456_789,
        }
    ]
    assert content["text_axis"] == {"dynamic": False, "reason": "the graph attends to padding"}


def test_a_directory_without_lock_has_none(tmp_path: Path) -> None:
    assert LockFile.read(tmp_path) is None
    assert LockFile.read(tmp_path / "missing") is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        "\x00",
        '{"format": 2, "name": "x", "sources": [], "files": []}',
        '{"format": 1, "name": 7, "sources": [], "files": []}',
        '{"format": 1, "name": "x", "sources": [{}], "files": []}',
        '{"format": 1, "name": "x", "sources": [], "files": [{"path": "a"}]}',
        '{"format": 1, "name": "x", "sources": [], "files": [{"path": "a", "bytes": 1e999}]}',
        "[" * 100_000,
    ],
)
def test_a_damaged_lock_is_refused_and_named(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK_FILE).write_text(content)
    with pytest.raises(ModelError, match=r"imagedex\.json' of a model is damaged.*install"):
        LockFile.read(tmp_path)


def test_a_lock_that_cannot_be_read_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(ModelError, match="cannot be read"):
        LockFile.read(tmp_path)
