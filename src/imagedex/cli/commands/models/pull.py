"""``imagedex models pull``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagedex.cli.commands.models.home import writable_model_store
from imagedex.cli.commands.models.progress import PullProgress
from imagedex.cli.invocation import JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.cli.text import byte_size

if TYPE_CHECKING:
    from imagedex.models import InstalledModel


def pull(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A model of `imagedex models list`, or a repository of the hub as OWNER/NAME.",
        ),
    ],
    from_dir: Annotated[
        Path | None,
        typer.Option(
            "--from-dir",
            metavar="DIR",
            help="Take the files from this directory, without a network, and call the model NAME.",
        ),
    ] = None,
    revision: Annotated[
        list[str] | None,
        typer.Option(
            "--revision",
            metavar="COMMIT",
            help="Take this commit, branch or tag instead of the pinned one; once for each "
            "repository that the model comes from.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the model when it is installed already.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Get a model from the hub, or from a directory, and install it below IMAGEDEX_HOME.

    Every file is held against the digest that the hub states. A pull that was interrupted goes on
    where it was.
    """
    from imagedex.models.pull import install_directory, published_model, pull_model

    if from_dir is not None and revision:
        raise typer.BadParameter(
            "a directory has no revisions; leave it away with --from-dir", param_hint="'--revision'"
        )
    output = Output(as_json=as_json)
    store = writable_model_store(invocation_of(context).settings())
    with PullProgress(output.errors) as progress:
        if from_dir is not None:
            model = install_directory(name, from_dir, store=store, watcher=progress, force=force)
        else:
            from imagedex.models.hub import default_hub

            model = pull_model(
                published_model(name),
                store=store,
                hub=default_hub(),
                watcher=progress,
                revisions=revision or (),
                force=force,
            )
    _write_model(output, model)


def _write_model(output: Output, model: InstalledModel) -> None:
    lock = model.lock
    size = sum(file.bytes for file in lock.files)
    axis = lock.text_axis
    if output.as_json:
        output.document(
            {
                "name": model.name,
                "directory": str(model.directory),
                "bytes": size,
                "sources": [
                    {"repo": source.repo, "revision": source.revision} for source in lock.sources
                ],
                "text_axis": None
                if axis is None
                else {"dynamic": axis.is_dynamic, "reason": axis.reason},
            }
        )
        return
    fields = [("model", model.name), ("directory", str(model.directory)), ("size", byte_size(size))]
    fields += [("from", f"{source.repo} at {source.revision}") for source in lock.sources]
    if axis is not None:
        length = "as long as the text" if axis.is_dynamic else "fixed"
        fields.append(("text axis", f"{length}: {axis.reason}"))
    output.fields(fields)
    output.note(f"Use it by: export IMAGEDEX_MODEL={model.name}")
