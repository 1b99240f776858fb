"""How a command ends when it does not end well."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command returns to the shell. Typer itself ends a wrong command line with 2."""

    OK = 0
    FAILED = 1
    WRONG_SETTINGS = 78  # EX_CONFIG of sysexits.h: trying again is of no use.
    INTERRUPTED = 130  # 128 + SIGINT, as shells report it.


class CommandFailed(Exception):
    """The command cannot do what was asked; its text is shown to the user as it is."""
