"""Real ``imagedex`` processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from imagedex.cli.program import run_command_line
from support.server import ADMIN_KEY, ServerProcess

COMMAND = (sys.executable, "-m", "imagedex.cli")
COMMAND_SECONDS = 150.0

Completed = subprocess.CompletedProcess[str]


class Commands:
    """Runs commands with the same environment: that of this process, without its settings.

    Each is a process of its own, or, with ``in_process``, a call that costs no start of one.
    """

    def __init__(self, environment: Mapping[str, str], *, in_process: bool = False) -> None:
        self._in_process = in_process
        self.environment = {
            **{name: value for name, value in os.environ.items() if "IMAGEDEX" not in name},
            **environment,
        }

    @classmethod
    def local(cls, home: Path, **settings: str) -> Commands:
        """Commands that work on a home directly."""
        return cls({"IMAGEDEX_HOME": str(home), **settings})

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
        return subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )

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

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a command in a session of its own and return at once."""
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
