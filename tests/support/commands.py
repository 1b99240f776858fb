"""Real ``imagedex`` processes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from imagedex.cli.program import run_command_line
from support.program import RunningProgram, start_program
from support.server import ADMIN_KEY, ServerProcess

COMMAND_SECONDS = 150.0

Completed = subprocess.CompletedProcess[str]


class Commands:
    """Runs commands with the same environment: that of this process, without its settings.

    Each is a process of its own, or, with ``in_process``, a call that costs no start of one.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        in_process: bool = False,
        is_fresh: bool = False,
    ) -> None:
        self._in_process = in_process
        self._is_fresh = is_fresh
        self.environment = {
            **{name: value for name, value in os.environ.items() if "IMAGEDEX" not in name},
            **environment,
        }

    @classmethod
    def local(cls, home: Path, **settings: str) -> Commands:
        """Commands that work on a home directly."""
        return cls({"IMAGEDEX_HOME": str(home), **settings})

    def fresh(self) -> Commands:
        """Return the same, but each of a fresh interpreter in any case."""
        return Commands(self.environment, is_fresh=True)

    @classmethod
    def remote(
        cls, server: ServerProcess, api_key: str = ADMIN_KEY, *, in_process: bool = False
    ) -> Commands:
        """Commands that talk to a server; their home must stay as it is: not there."""
        environment = {
            "IMAGEDEX_URL": server.url,
            "IMAGEDEX_API_KEY": api_key,
            "IMAGEDEX_HOME": str(server.home.parent / "no-home"),
        }
        return cls(environment, in_process=in_process)

    def run(self, *arguments: str | Path, code: int = 0) -> Completed:
        """Run a command to its end, which must be this exit code and show no traceback."""
        execute = self._call if self._in_process else self._execute
        done = execute([str(argument) for argument in arguments])
        assert done.returncode == code, (
            f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        return done

    def _execute(self, arguments: list[str]) -> Completed:
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=COMMAND_SECONDS)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def _call(self, arguments: list[str]) -> Completed:
        with (
            pytest.MonkeyPatch.context() as patch,
            redirect_stdout(StringIO()) as out,
            redirect_stderr(StringIO()) as err,
        ):
            for name, value in self.environment.items():
                patch.setenv(name, value)
            code = run_command_line(arguments)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    def json(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        """Run a command with ``--json``; return the one document that stdout holds."""
        document: dict[str, Any] = json.loads(self.run(*arguments, "--json", code=code).stdout)
        return document

    def fail(self, *arguments: str | Path) -> str:
        """Run a command that must fail; return the one line that it tells."""
        done = self.run(*arguments, code=1)
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, done.stderr
        return errors[0]

    def start(self, *arguments: str | Path) -> RunningProgram:
        """Start a command in a session of its own and return at once."""
        words = [str(argument) for argument in arguments]
        return start_program(words, self.environment, is_fresh=self._is_fresh)
