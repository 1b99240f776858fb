"""The group of commands."""

from __future__ import annotations

import typer

from imagedex.cli.commands.models.bench import bench
from imagedex.cli.commands.models.export import export
from imagedex.cli.commands.models.listing import list_models
from imagedex.cli.commands.models.pull import pull
from imagedex.cli.commands.models.quantize import quantize
from imagedex.cli.commands.models.remove import remove
from imagedex.cli.commands.models.use import use
from imagedex.cli.commands.models.verify import verify
from imagedex.cli.invocation import JsonOption

models = typer.Typer(
    help="List, get, use, check and remove embedding models.", rich_markup_mode=None
)


@models.callback(invoke_without_command=True)
def list_by_default(context: typer.Context, as_json: JsonOption = False) -> None:
    """List, get, use, check and remove embedding models. Without a command: list them.

    Models are files below IMAGEDEX_HOME on this machine; IMAGEDEX_URL is of no matter here, but
    for ``use``.
    """
    if context.invoked_subcommand is None:
        list_models(context, as_json=as_json)
    elif as_json:
        raise typer.BadParameter(
            f"give it after the command: imagedex models {context.invoked_subcommand} --json",
            param_hint="'--json'",
        )


models.command("list")(list_models)
models.command("pull")(pull)
models.command("use")(use)
models.command("verify")(verify)
models.command("remove")(remove)
models.command("quantize")(quantize)
models.command("bench")(bench)
models.command("export")(export)
