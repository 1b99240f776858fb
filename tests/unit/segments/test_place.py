"""By what two machines know that they see the same index."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagedex.core.errors import StorageError
from imagedex.segments import place_of, require_place


def test_all_who_ask_at_once_get_the_same_name(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as callers:
        names = set(callers.map(lambda _: place_of(tmp_path / "index"), range(32)))
    assert len(names) == 1
    assert [path.name for path in (tmp_path / "index").iterdir()] == ["PLACE"]
    require_place(tmp_path / "index", names.pop())


def test_another_directory_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    place = place_of(tmp_path / "index")
    place_of(tmp_path / "other")
    with pytest.raises(StorageError, match="another directory"):
        require_place(tmp_path / "other", place)
    with pytest.raises(StorageError, match="mounted"):
        require_place(tmp_path / "nowhere", place)
    # The same share, mounted elsewhere.
    shutil.copytree(tmp_path / "index", tmp_path / "elsewhere")
    require_place(tmp_path / "elsewhere", place)


def test_storage_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("a file where a directory should be")
    with pytest.raises(StorageError, match="index"):
        place_of(tmp_path / "index")
