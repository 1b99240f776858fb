"""``imagedex rebuild``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from imagedex.cli.commands.search import absolute_text
from imagedex.cli.invocation import IndexPrefixOption, Invocation, JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.cli.watching import watch, write_receipt

if TYPE_CHECKING:
    from imagedex.client import ImagedexClient


def rebuild(
    context: typer.Context,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Leave the job to the server and return at once.")
    ] = False,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make one segment of all that an index has, with new search structures.

    Nothing is embedded again. Queries are answered all the while. Indexing does this by itself
    when enough has changed; by hand it is for the time before a busy day, or after the settings
    of search have changed.
    """
    from imagedex.cli.connection import is_remote

    if no_wait and not is_remote():
        raise typer.BadParameter(
            "without a server nobody would do the work; set IMAGEDEX_URL and IMAGEDEX_API_KEY",
            param_hint="'--no-wait'",
        )
    output = Output(as_json=as_json)
    with _client(invocation_of(context)) as client:
        receipt = client.rebuild(index_prefix=absolute_text(index_prefix))
        if no_wait:
            write_receipt(output, receipt)
        else:
            watch(output, client, receipt.job_id)


@contextmanager
def _client(invocation: Invocation) -> Iterator[ImagedexClient]:
    from imagedex.cli.connection import is_remote, local_client, remote_client

    if is_remote():
        with remote_client() as client:
            yield client
    else:
        with local_client(invocation.settings(), run_jobs=True, debug=invocation.debug) as client:
            yield client
