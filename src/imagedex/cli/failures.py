"""How a command ends when it does not end well."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command returns to the shell."""

    OK = 0
    FAILED = 1
    USAGE = 2  # As Typer does for arguments that it cannot parse.
    INTERRUPTED = 130  # 128 + SIGINT, as shells report it.


class CommandFailed(Exception):
    """The command cannot do what was asked; its text is shown to the user as it is."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
