"""The program: global options, commands, and how errors reach the user."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from imagedex.cli.commands.compare import compare
from imagedex.cli.commands.doctor import doctor
from imagedex.cli.commands.eval import evaluate
from imagedex.cli.commands.export_legacy import export_legacy
from imagedex.cli.commands.import_legacy import import_legacy
from imagedex.cli.commands.index import index
from imagedex.cli.commands.jobs import jobs
from imagedex.cli.commands.keys import keys
from imagedex.cli.commands.models import models
from imagedex.cli.commands.rebuild import rebuild
from imagedex.cli.commands.search import search
from imagedex.cli.commands.serve import serve
from imagedex.cli.commands.snapshot import rollback, snapshot
from imagedex.cli.commands.stats import stats
from imagedex.cli.failures import CommandFailed, ExitCode
from imagedex.cli.invocation import Invocation
from imagedex.cli.output import write_note
from imagedex.core.errors import ImagedexError, SettingsError

program = typer.Typer(
    name="imagedex",
    no_args_is_help=True,
    add_completion=False,
    # Plain help is several times as quick to show as Rich's, and can be searched by grep.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
program.command("serve")(serve)
program.command("index")(index)
program.command("rebuild")(rebuild)
program.command("search")(search)
program.add_typer(jobs, name="jobs")
program.command("stats")(stats)
program.add_typer(keys, name="keys")
program.add_typer(models, name="models")
program.command("eval")(evaluate)
program.add_typer(snapshot, name="snapshot")
program.command("rollback")(rollback)
program.command("doctor")(doctor)
program.command("import-legacy")(import_legacy)
program.command("export-legacy")(export_legacy)
program.command("compare")(compare)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        sys.stdout.write(f"imagedex {version('imagedex')}\n")
        raise typer.Exit


@program.callback()
def _global_options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Read settings from this TOML file."),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Log more, and show tracebacks of errors.")
    ] = False,
    _is_version_asked: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Describe a photo, find it.

    With IMAGEDEX_URL and IMAGEDEX_API_KEY set, commands speak to that server; without them
    they work on IMAGEDEX_HOME directly. `serve`, `models`, `eval`, `doctor` and what concerns
    old indexes always work here.
    """
    context.obj = Invocation(config=config, debug=debug)


def main() -> None:
    """Run the command line of this process and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        # A locale that lacks a character must cost that character, not the command.
        # Typed as TextIO, which lacks reconfigure; in a process of ours it is a TextIOWrapper.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has SIGHUP ignored.
            signal.signal(number, _leave)
    code = run_command_line(sys.argv[1:])
    _flush()
    sys.exit(code)


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code.

    0 done, 1 failed, 2 usage, 78 settings that cannot be used, 128 + signal. Errors are told on
    stderr, in a line or two. Only the end of the process is left to do.
    """
    try:
        program(list(arguments), prog_name="imagedex")
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        return _report(error, debug="--debug" in arguments)
    return ExitCode.OK


def _report(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, (CommandFailed, ImagedexError)) or _is_client_error(error):
        write_note(f"Error: {error}")
    else:
        write_note(f"Error: unexpected {type(error).__name__}: {error}")
        if not debug:
            write_note("Run it as `imagedex --debug …` to see where; please report it.")
    return ExitCode.WRONG_SETTINGS if isinstance(error, SettingsError) else ExitCode.FAILED


def _is_client_error(error: Exception) -> bool:
    # The client is imported only by commands that use it; without it no error can be its own.
    client = sys.modules.get("imagedex.client")
    return client is not None and isinstance(error, client.ClientError)


def _flush() -> None:
    """Write out what is buffered; the reader of a pipe may have gone, which is its right."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at exit and would complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(number: int, _frame: FrameType | None) -> None:
    """Leave by SystemExit, so that jobs and workers of this process are ended in good order."""
    sys.exit(128 + number)
