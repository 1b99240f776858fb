"""``imagedex models list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from imagedex.cli.commands.models.home import model_store
from imagedex.cli.invocation import JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.cli.text import byte_size

if TYPE_CHECKING:
    from imagedex.models.listing import ListedModel


def list_models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List all models that are installed or can be pulled by name."""
    from imagedex.models import listing

    output = Output(as_json=as_json)
    store = model_store(invocation_of(context).settings())
    found = listing.list_models(store)
    if output.as_json:
        output.document({"models": [_document(model) for model in found]})
        return
    rows = [
        (
            model.name,
            model.state.value,
            "" if model.dim is None else str(model.dim),
            "" if model.bytes is None else byte_size(model.bytes),
            ", ".join(model.precisions),
            model.licence,
        )
        for model in found
    ]
    output.table(("name", "state", "dim", "size", "precisions", "licence"), rows)
    for model in found:
        if model.problem is not None:
            output.note(f"{model.name} is damaged: {model.problem}")


def _document(model: ListedModel) -> dict[str, object]:
    return {
        "name": model.name,
        "state": model.state.value,
        "dim": model.dim,
        "bytes": model.bytes,
        "precisions": list(model.precisions),
        "licence": model.licence,
        "summary": model.summary,
        "problem": model.problem,
    }
