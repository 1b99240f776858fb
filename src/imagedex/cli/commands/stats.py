"""``imagedex stats``."""

from __future__ import annotations

import typer

from imagedex.cli.commands.search import absolute_text
from imagedex.cli.invocation import IndexPrefixOption, JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.cli.text import byte_size


def stats(
    context: typer.Context,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an index holds."""
    from imagedex.cli.connection import connect

    output = Output(as_json=as_json)
    with connect(invocation_of(context)) as client:
        answer = client.stats(index_prefix=absolute_text(index_prefix))
    if output.as_json:
        output.document(answer)
        return
    size = answer.index_size_bytes
    updated = answer.last_updated
    output.fields(
        [
            ("images", f"{answer.num_images:,}"),
            ("failed", f"{answer.num_failed:,}"),
            ("model", f"{answer.model_name}, {answer.embedding_dim} dimensions"),
            ("generation", str(answer.generation)),
            ("last updated", "never" if updated is None else updated.isoformat(timespec="seconds")),
            (
                "size",
                (
                    f"{byte_size(size.total)} (vectors {byte_size(size.parquet)}, "
                    f"search structure {byte_size(size.faiss)})"
                ),
            ),
        ]
    )
