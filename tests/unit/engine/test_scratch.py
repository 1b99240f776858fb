"""The directory for what Dask insists on writing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imagedex.engine._scratch import scratch_directory


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the directories be made where the test can see them."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_the_directory_is_private_and_removed_with_its_content(temporary: Path) -> None:
    with scratch_directory() as directory:
        assert directory.parent == temporary
        assert directory.stat().st_mode & 0o777 == 0o700
        (directory / "deep").mkdir()
        (directory / "deep" / "file").touch()
    assert list(temporary.iterdir()) == []


def test_a_directory_in_use_is_left_alone(temporary: Path) -> None:
    with scratch_directory() as first, scratch_directory() as second:
        assert first.exists()
        assert second.exists()


def test_what_a_killed_process_left_is_removed_by_the_next(temporary: Path) -> None:
    code = f"""
import sys, tempfile
tempfile.tempdir = {str(temporary)!r}
from imagedex.engine._scratch import scratch_directory
with scratch_directory() as directory:
    print(directory, flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    left = Path(process.stdout.readline().strip())
    with scratch_directory():
        assert left.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    process.stdin.close()
    assert left.exists()
    with scratch_directory():
        assert not left.exists()


def test_links_and_files_of_that_name_are_never_followed(temporary: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "lock").touch()
    (temporary / "imagedex-engine-link").symlink_to(precious)
    (temporary / "imagedex-engine-file").touch()
    with scratch_directory():
        pass
    assert (precious / "lock").exists()
