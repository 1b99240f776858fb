"""``imagedex search``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from imagedex.cli.invocation import IndexPrefixOption, JsonOption, invocation_of
from imagedex.cli.output import Output


def search(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What the images show, in a few words.")],
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", min=1, max=1000, help="How many images to return.")
    ] = 10,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find images by describing them, best first."""
    from imagedex.cli.connection import connect

    output = Output(as_json=as_json)
    with connect(invocation_of(context)) as client:
        answer = client.query(text, top_k=top_k, index_prefix=absolute_text(index_prefix))
    if output.as_json:
        output.document(answer)
        return
    if not answer.results:
        output.note("Nothing is indexed yet; index a directory with: imagedex index DIR")
    if answer.query_cut:
        output.note("The text is longer than the model reads; its end did not count.")
    rows = [
        (str(result.rank), f"{result.score:.4f}", result.image_path) for result in answer.results
    ]
    output.table(("rank", "score", "path"), rows)


def absolute_text(path: Path | None) -> str | None:
    """Return a path as the server names it: from the root on, links left as they are."""
    return None if path is None else os.path.abspath(path)  # noqa: PTH100 - resolve() follows links.
