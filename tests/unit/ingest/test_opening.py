"""Opening files: both ways to do it refuse the same things for the same reasons."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from imagedex.core.images import FailureReason, FileStamp
from imagedex.ingest.opening import OpenedFile, open_regular_file
from imagedex.ingest.unusable import UnusableImage
from imagedex.testing.hostile_images import HOSTILE_FILES

pytestmark = pytest.mark.usefixtures("way")


@pytest.fixture(params=["by handle", "and compare"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "and compare":
        monkeypatch.delattr(os, "O_PATH")  # As on systems other than Linux.


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def reason_of(path: Path | str) -> FailureReason:
    with pytest.raises(UnusableImage) as caught:
        open_regular_file(str(path))
    return caught.value.reason


def test_a_file_opens_with_its_stamp_and_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"four")
    link = tmp_path / "link.jpg"
    link.symlink_to(path)
    with open_regular_file(str(link)) as opened:
        assert isinstance(opened, OpenedFile)
        assert opened.real_path == str(path.resolve())
        assert opened.stamp() == FileStamp(4, path.stat().st_mtime_ns)
        assert not os.get_inheritable(opened.descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened.descriptor)


@pytest.mark.parametrize(
    "name", ["folder.jpg", "fifo.jpg", "socket.jpg", "device.jpg", "dangling.jpg", "loop.jpg"]
)
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, name: str) -> None:
    (hostile,) = (file for file in HOSTILE_FILES if file.name == name)
    hostile.write(tmp_path / name)
    before = open_descriptors()
    assert reason_of(tmp_path / name) is hostile.reason
    assert open_descriptors() == before


def test_what_is_not_there_has_vanished(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing.jpg", tmp_path / "file" / "a.jpg", tmp_path / ("n" * 256)):
        assert reason_of(path) is FailureReason.VANISHED
    assert reason_of("/nul\0.jpg") is FailureReason.VANISHED


def test_what_permissions_forbid_is_unreadable(
    open_directory: Path, unprivileged: Callable[[], AbstractContextManager[None]]
) -> None:
    path = open_directory / "locked.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    with unprivileged():
        assert reason_of(path) is FailureReason.UNREADABLE
