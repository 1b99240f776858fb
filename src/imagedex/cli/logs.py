"""Where log lines go: always stderr, since stdout belongs to results."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import TextIO

import structlog
from structlog.typing import EventDict, Processor

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)


# Of syslog(3), which journald takes from the beginning of a line (sd-daemon(3)).
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG_PRIORITY = 7


def configure_logging(level: str, *, pretty: bool, tracebacks: bool = True) -> None:
    """Send the log lines of this process, those of libraries included, to stderr.

    Each line is one JSON object, or coloured text for a person when ``pretty``. Without
    ``tracebacks`` an exception is told by its text alone. Where stderr is systemd's journal, JSON
    lines begin with their priority, which the journal takes off again. Calling it again takes over
    libraries that were imported since and brought handlers of their own.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    tail: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _drop_colour_message,
    ]
    if not tracebacks:
        tail.append(_shorten_exception)
    if pretty:
        # Plain tracebacks: Rich's would print local variables, and with them secrets.
        tail.append(
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        )
    else:
        tail += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    is_for_journal = not pretty and is_journal(sys.stderr)
    formatter = _JournalFormatter if is_for_journal else structlog.stdlib.ProcessorFormatter
    handler.setFormatter(
        formatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder()],
            processors=tail,
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(number)
    _take_over_library_handlers()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Loggers are made at import time, often before this; a cached one would keep on
        # writing with the old settings.
        cache_logger_on_first_use=False,
    )


def is_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Say whether a stream leads to systemd's journal: ``JOURNAL_STREAM`` of systemd.exec(5).

    The variable is inherited also by processes whose output goes elsewhere, so it tells the file.
    """
    try:
        status = os.fstat(stream.fileno())
    except OSError:  # Also a stream that is no file.
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _JournalFormatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        """Put the priority before the line, so that ``journalctl -p warning`` finds it."""
        priorities = (priority for level, priority in _PRIORITIES if record.levelno >= level)
        return f"<{next(priorities, _DEBUG_PRIORITY)}>{super().format(record)}"


def _drop_colour_message(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Drop uvicorn's second copy of the message, which has codes for colours in it."""
    event.pop("color_message", None)
    return event


def _shorten_exception(_logger: object, _method: str, event: EventDict) -> EventDict:
    exc_info = event.pop("exc_info", None)
    if exc_info is True:  # The exception that is being handled where the line was written.
        exc_info = sys.exc_info()
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if isinstance(error, BaseException):
        event["error"] = str(error) or type(error).__name__
    return event


def _take_over_library_handlers() -> None:
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True
