"""No file of a model fills the memory, whatever a stranger put there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.int8_record import Int8Record
from imagedex.embedding.clip.json_fields import JsonFields
from imagedex.embedding.clip.lock_file import LOCK_FILE, LockFile
from imagedex.embedding.clip.small_files import MAX_BYTES, read_small_file


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"12345")
    assert read_small_file(path, max_bytes=5) == b"12345"
    with pytest.raises(ModelError, match=r"config\.json.*more than 4 bytes"):
        read_small_file(path, max_bytes=4)


@pytest.mark.parametrize(
    "read",
    [JsonFields.load, Int8Record.read, lambda path: LockFile.read(path.parent)],
    ids=["configuration", "int8 record", "lock file"],
)
def test_a_huge_file_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / LOCK_FILE
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # A hole: it takes no space on the disk.
    with pytest.raises(ModelError, match="more than"):
        read(path)
