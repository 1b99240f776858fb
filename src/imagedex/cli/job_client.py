"""The client of a command that has a job done: by the server, or by this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from imagedex.cli.invocation import Invocation

if TYPE_CHECKING:
    from imagedex.client import ImagedexClient


def require_server_for(option: str) -> None:
    """Refuse an option that leaves the work to a server where there is none."""
    from imagedex.cli.connection import is_remote

    if not is_remote():
        raise typer.BadParameter(
            "without a server nobody would do the work; set IMAGEDEX_URL and IMAGEDEX_API_KEY",
            param_hint=f"'{option}'",
        )


@contextmanager
def job_client(invocation: Invocation, *, reads_images: bool = False) -> Iterator[ImagedexClient]:
    """Give the client; without a server this process runs jobs as long as the block lasts.

    For a job that ``reads_images`` of an index, all that was indexed before may then be read.
    """
    from imagedex.cli.connection import is_remote, local_client, remote_client

    if is_remote():
        with remote_client() as client:
            yield client
    else:
        settings = invocation.settings()
        if reads_images:
            from imagedex.cli.local_roots import with_local_roots

            settings = with_local_roots(settings, [], with_indexed=True)
        with local_client(settings, run_jobs=True, debug=invocation.debug) as client:
            yield client
