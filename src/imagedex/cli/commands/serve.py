"""``imagedex serve``."""

from __future__ import annotations

import faulthandler
import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from imagedex.cli.invocation import invocation_of


def serve(
    context: typer.Context,
    host: Annotated[
        str | None,
        typer.Option("--host", help="Address to listen on. [IMAGEDEX_SERVER__HOST: 127.0.0.1]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help="Port to listen on; 0 takes a free one. [IMAGEDEX_SERVER__PORT: 8080]",
        ),
    ] = None,
) -> None:
    """Run the server: REST API, search page and indexing jobs, until SIGTERM or Ctrl-C.

    Unfinished jobs go on at the next start. The first start makes an admin key and prints
    it to stderr, unless IMAGEDEX_ADMIN_KEY or IMAGEDEX_ADMIN_KEY_FILE is set. The exit code is 0
    after a signal, 1 when something failed that may pass, and 2 or 78 when command line or
    settings must be changed first. systemd is told when the server is ready and while all of it
    moves (sd_notify, watchdog).
    """
    from imagedex.cli.listener import bind
    from imagedex.cli.logs import configure_logging

    # What ends the process at once (a watchdog's SIGABRT, SIGBUS after a read error of a mapped
    # index) leaves the stacks of all threads in the log.
    faulthandler.enable()
    signal.signal(signal.SIGTERM, _end_well)
    invocation = invocation_of(context)
    given = {"host": host, "port": port}
    server = {name: value for name, value in given.items() if value is not None}
    settings = invocation.settings(**({"server": server} if server else {}))
    is_text = settings.log_format == "text"
    configure_logging(
        "debug" if invocation.debug else settings.log_level,
        pretty=is_text or (settings.log_format == "auto" and sys.stderr.isatty()),
    )
    with bind(settings.server) as listener:
        # Imported only now: an address that cannot be had is told before the rest is loaded.
        from imagedex.cli.server import run_server

        run_server(settings, listener)


def _end_well(_number: int, _frame: FrameType | None) -> None:
    """Leave by SystemExit, so that everything that is open gets closed on the way."""
    sys.exit(0)
