"""``imagedex serve``."""

from __future__ import annotations

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
    it to stderr, unless IMAGEDEX_ADMIN_KEY is set.
    """
    from imagedex.cli.listener import bind
    from imagedex.cli.logs import configure_logging

    signal.signal(signal.SIGTERM, _end_well)
    invocation = invocation_of(context)
    given = {"host": host, "port": port}
    server = {name: value for name, value in given.items() if value is not None}
    settings = invocation.settings(**({"server": server} if server else {}))
    configure_logging(
        "debug" if invocation.debug else settings.log_level, pretty=sys.stderr.isatty()
    )
    with bind(settings.server) as listener:
        # Imported only now: an address that cannot be had is told before the rest is loaded.
        from imagedex.cli.server import run_server

        run_server(settings, listener)


def _end_well(_number: int, _frame: FrameType | None) -> None:
    """Leave by SystemExit, so that everything that is open gets closed on the way."""
    sys.exit(0)
