"""Reading files whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagedex.core.images import FailureReason, FileStamp
from imagedex.ingest import ImageRoots
from imagedex.ingest.reading import read_image
from imagedex.ingest.unusable import UnusableImage


class Writer:
    """Changes the file each time that it is opened, up to ``times`` times."""

    def __init__(self, path: Path, times: int) -> None:
        self.path = path
        self.times = times
        self.stamps: list[FileStamp] = []

    def __call__(self, stamp: FileStamp) -> None:
        self.stamps.append(stamp)
        if len(self.stamps) <= self.times:
            self.change()

    def change(self) -> None:
        with self.path.open("ab") as file:
            file.write(b"more")


class Rewriter(Writer):
    """Replaces the bytes in place, keeping the size."""

    def change(self) -> None:
        status = self.path.stat()
        with self.path.open("r+b") as file:
            file.write(b"XXXX")
        # As if it took a tick of the file system's clock.
        os.utime(self.path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


class Truncater(Writer):
    """Cuts the file off."""

    def change(self) -> None:
        os.truncate(self.path, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"first")
    return path


def test_a_quiet_file_is_read_once(path: Path) -> None:
    writer = Writer(path, times=0)
    file = read_image(ImageRoots([path.parent]), str(path), max_file_bytes=5, on_open=writer)
    assert file.data == b"first"
    assert [file.stamp] == writer.stamps == [FileStamp(5, path.stat().st_mtime_ns)]


@pytest.mark.parametrize("kind", [Writer, Rewriter])
def test_a_file_that_changes_once_is_read_again(path: Path, kind: type[Writer]) -> None:
    writer = kind(path, times=1)
    file = read_image(ImageRoots([path.parent]), str(path), max_file_bytes=99, on_open=writer)
    assert file.data == path.read_bytes() != b"first"
    assert file.stamp == writer.stamps[1] != writer.stamps[0]


def test_a_file_that_shrinks_is_read_again(path: Path) -> None:
    writer = Truncater(path, times=1)
    file = read_image(ImageRoots([path.parent]), str(path), max_file_bytes=99, on_open=writer)
    assert file.data == b"f"


def test_a_file_that_keeps_changing_is_left_for_later(path: Path) -> None:
    with pytest.raises(UnusableImage, match="still being written") as caught:
        read_image(
            ImageRoots([path.parent]), str(path), max_file_bytes=99, on_open=Writer(path, times=9)
        )
    assert caught.value.reason is FailureReason.UNREADABLE
    assert caught.value.stamp is None  # So that the next scan looks at it again.


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", FailureReason.EMPTY), (b"123456", FailureReason.TOO_MANY_BYTES)],
)
def test_sizes_out_of_bounds_fail_with_the_stamp(
    path: Path, content: bytes, reason: FailureReason
) -> None:
    path.write_bytes(content)
    with pytest.raises(UnusableImage) as caught:
        read_image(
            ImageRoots([path.parent]), str(path), max_file_bytes=5, on_open=Writer(path, times=0)
        )
    assert caught.value.reason is reason
    assert caught.value.stamp == FileStamp(len(content), path.stat().st_mtime_ns)
