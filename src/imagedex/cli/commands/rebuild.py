"""``imagedex rebuild``."""

from __future__ import annotations

from typing import Annotated

import typer

from imagedex.cli.commands.search import absolute_text
from imagedex.cli.invocation import IndexPrefixOption, JsonOption, invocation_of
from imagedex.cli.job_client import job_client, require_server_for
from imagedex.cli.output import Output
from imagedex.cli.watching import watch, write_receipt


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
    if no_wait:
        require_server_for("--no-wait")
    output = Output(as_json=as_json)
    with job_client(invocation_of(context)) as client:
        receipt = client.rebuild(index_prefix=absolute_text(index_prefix))
        if no_wait:
            write_receipt(output, receipt)
        else:
            watch(output, client, receipt.job_id)
