"""``imagedex models remove``."""

from __future__ import annotations

from typing import Annotated

import typer

from imagedex.cli.commands.models.home import model_store
from imagedex.cli.commands.models.progress import PullProgress
from imagedex.cli.invocation import JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.cli.text import byte_size


def remove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="An installed model.")],
    as_json: JsonOption = False,
) -> None:
    """Delete the files of an installed model.

    An index that was made with it stays, and can be searched again once the same model is back.
    """
    output = Output(as_json=as_json)
    store = model_store(invocation_of(context).settings())
    store.get(name)
    with PullProgress(output.errors) as progress:
        size = store.remove(name, progress)
    if output.as_json:
        output.document({"name": name, "removed_bytes": size})
    else:
        output.line(f"{name} is removed, {byte_size(size)}.")
