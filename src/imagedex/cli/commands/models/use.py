"""``imagedex models use``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from imagedex.cli.commands.search import absolute_text
from imagedex.cli.invocation import IndexPrefixOption, JsonOption, invocation_of
from imagedex.cli.job_client import job_client, require_server_for
from imagedex.cli.output import Output
from imagedex.cli.watching import watch, write_receipt


class PrecisionName(StrEnum):
    """The arithmetic of a model."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


def use(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="bundled, or an installed model.")],
    precision: Annotated[
        PrecisionName | None,
        typer.Option(
            "--precision",
            help="By default that of the settings for the model that they name, or fp32.",
        ),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Leave the job to the server and return at once.")
    ] = False,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an index another model: embed all its images anew, and then swap.

    Until then queries are answered with the old vectors. Interrupted, it goes on when the same
    command is given again. With IMAGEDEX_URL the model is one of the server's.
    """
    if no_wait:
        require_server_for("--no-wait")
    output = Output(as_json=as_json)
    with job_client(invocation_of(context), reads_images=True) as client:
        receipt = client.change_model(
            name,
            precision=None if precision is None else precision.value,
            index_prefix=absolute_text(index_prefix),
        )
        if no_wait:
            write_receipt(output, receipt)
        else:
            watch(output, client, receipt.job_id)
