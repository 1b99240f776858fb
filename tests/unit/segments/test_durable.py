"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from imagedex.core.errors import StorageError
from imagedex.segments.durable import HashingFile, create_file, make_directory, replace_file


def test_a_created_file_tells_its_size_and_checksum(tmp_path: Path) -> None:
    def write(file: HashingFile) -> None:
        file.write(b"one ")
        file.write(memoryview(b"two"))

    written = create_file(tmp_path / "file", write)
    assert (tmp_path / "file").read_bytes() == b"one two"
    assert written.bytes == 7
    assert written.sha256 == hashlib.sha256(b"one two").hexdigest()


def test_a_name_that_is_taken_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(StorageError, match="File exists"):
        create_file(tmp_path / "file", lambda file: file.write(b"new"))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("put", [create_file, replace_file])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(28, "No space left on device"), StorageError), (ValueError("x"), ValueError)],
)
def test_a_writer_that_fails_leaves_nothing_behind(
    tmp_path: Path, put: object, error: Exception, raised: type[Exception]
) -> None:
    def fail(file: HashingFile) -> None:
        file.write(b"half")
        raise error

    assert callable(put)
    with pytest.raises(raised):
        put(tmp_path / "file", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_replaced_file_keeps_the_old_content_for_those_who_have_it_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, lambda file: file.write(b"old"))
    with path.open("rb") as reader:
        replace_file(path, lambda file: file.write(b"new"))
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_a_full_disk_is_told_with_its_remedy(tmp_path: Path) -> None:
    def fail(_file: HashingFile) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left on device; free some space") as caught:
        create_file(tmp_path / "file", fail)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.retryable


def test_directories_are_made_with_their_parents(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "b" / "c")
    make_directory(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="make the directory"):
        make_directory(tmp_path / "file" / "below")
