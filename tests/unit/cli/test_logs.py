"""Log lines of our own and of libraries."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from imagedex.cli.logs import configure_logging, is_journal
from imagedex.cli.program import run_command_line


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Give the process's logging back as it was."""
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def _fail() -> None:
    try:
        raise ValueError("the reason")
    except ValueError:
        structlog.get_logger("imagedex.test").exception("it_failed", job_id="idx_1")


def test_without_a_terminal_each_line_is_json_whoever_wrote_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("info", pretty=False)
    structlog.get_logger("imagedex.test").info("published", generation=3)
    library = logging.getLogger("some.library")
    library.warning("look %s", "out", extra={"color_message": "\x1b[31mlook out"})
    _fail()

    captured = capsys.readouterr()
    assert captured.out == ""
    ours, theirs, failure = (json.loads(line) for line in captured.err.splitlines())
    assert (ours["event"], ours["generation"], ours["level"]) == ("published", 3, "info")
    assert (theirs["event"], theirs["logger"]) == ("look out", "some.library")
    assert "\x1b" not in captured.err
    assert "color_message" not in theirs
    assert "ValueError: the reason" in failure["exception"]


def test_lines_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", pretty=True)
    structlog.get_logger("imagedex.test").info("published")
    logging.getLogger("some.library").info("hello")

    assert capsys.readouterr().err == ""


def test_a_command_tells_the_reason_of_an_exception_without_its_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("warning", pretty=True, tracebacks=False)
    _fail()

    told = capsys.readouterr().err
    assert "it_failed" in told
    assert "the reason" in told
    assert "Traceback" not in told
    assert len(told.splitlines()) == 1


def test_a_traceback_for_people_shows_no_values_of_variables(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("warning", pretty=True)
    secret = "s3cret"
    _fail()
    del secret

    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "s3cret" not in told


def test_handlers_that_libraries_brought_are_taken_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    library = logging.getLogger("library.with.handler")
    library.addHandler(logging.StreamHandler())
    library.propagate = False
    configure_logging("info", pretty=False)
    library.warning("once")

    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "once"


def test_lines_for_the_journal_begin_with_their_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        monkeypatch.setattr(sys, "stderr", journal)
        configure_logging("debug", pretty=False)
        log = structlog.get_logger("imagedex.test")
        log.debug("looked")
        log.info("published")
        logging.getLogger("some.library").warning("look out")
        log.error("failed")
        log.critical("lost")

    lines = (tmp_path / "journal").read_text().splitlines()
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>", "<2>"]
    assert json.loads(lines[1][3:])["event"] == "published"


def test_a_stream_is_the_journal_only_when_it_is_that_very_file(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as stream, (tmp_path / "b").open("w") as other:
        status = os.fstat(other.fileno())
        variable = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(other, variable)
        assert not is_journal(stream, variable)
        assert not is_journal(io.StringIO(), variable)
        assert not is_journal(stream, {})


@pytest.mark.parametrize(
    ("log_format", "pretty"), [("auto", False), ("json", False), ("text", True)]
)
def test_the_server_logs_in_the_format_of_the_settings(
    log_format: str, pretty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[bool] = []
    monkeypatch.setattr("faulthandler.enable", lambda: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    monkeypatch.setattr(
        "imagedex.cli.logs.configure_logging", lambda level, *, pretty: chosen.append(pretty)
    )
    monkeypatch.setenv("IMAGEDEX_LOG_FORMAT", log_format)
    # Not an address of this machine, so that nothing is started.
    assert run_command_line(["serve", "--host", "203.0.113.1"]) == 1
    assert chosen == [pretty]
