"""Log lines of our own and of libraries."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from imagedex.cli.logs import configure_logging


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
