"""The log file of a worker slot."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.engine import _worker_log
from imagedex.engine._worker_log import WorkerLog


def test_a_log_grows_from_start_to_start_and_is_its_owners_alone(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "logs" / "worker-1.log")
    for line in (b"first\n", b"second\n"):
        with log.open() as output:
            output.write(line)
    assert log.path.read_bytes() == b"first\nsecond\n"
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert log.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_log_that_grew_too_large_keeps_its_end_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_worker_log, "_MAX_BYTES", 10)
    log = WorkerLog(tmp_path / "worker-1.log")
    with log.open() as output:
        output.write(b"0123456789abcdef")
        output.flush()
        log.bound()
        # The worker goes on writing to the file that it has open.
        output.write(b"later")
    assert log.path.read_bytes() == b"later"
    assert (tmp_path / "worker-1.log.1").read_bytes() == b"6789abcdef"
    log.bound()
    assert log.path.read_bytes() == b"later"


def test_a_log_is_cut_even_when_its_end_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_worker_log, "_MAX_BYTES", 10)
    log = WorkerLog(tmp_path / "worker-1.log")
    log.path.write_bytes(b"0123456789abcdef")
    (tmp_path / "worker-1.log.1").mkdir()
    with pytest.raises(IsADirectoryError):
        log.bound()
    assert log.path.read_bytes() == b""


def test_the_tail_is_the_last_lines_or_says_that_there_are_none(tmp_path: Path) -> None:
    log = WorkerLog(tmp_path / "worker-1.log")
    assert "no log" in log.tail()
    log.path.touch()
    assert "empty" in log.tail()
    log.path.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(5000)))
    assert log.tail(max_lines=2).splitlines() == [
        "line 4998 \N{REPLACEMENT CHARACTER}",
        "line 4999 \N{REPLACEMENT CHARACTER}",
    ]
