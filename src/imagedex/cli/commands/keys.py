"""``imagedex keys``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from imagedex.cli.invocation import JsonOption, invocation_of
from imagedex.cli.output import Output

keys = typer.Typer(help="Make, list and revoke API keys.", rich_markup_mode=None)


class ScopeName(StrEnum):
    """What a key may allow, as words of ``--scope``."""

    QUERY = "query"
    INDEX = "index"
    ADMIN = "admin"


@keys.callback(invoke_without_command=True)
def list_by_default(context: typer.Context, as_json: JsonOption = False) -> None:
    """Make, list and revoke API keys. Without a command: list them."""
    if context.invoked_subcommand is None:
        list_keys(context, as_json=as_json)
    elif as_json:
        raise typer.BadParameter(
            f"give it after the command: imagedex keys {context.invoked_subcommand} --json",
            param_hint="'--json'",
        )


@keys.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", help="What the key is for.")],
    scope: Annotated[
        list[ScopeName] | None,
        typer.Option("--scope", help="What it allows; give it several times. By default: query."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key. Its secret is printed now and never again."""
    from imagedex.cli.connection import connect

    output = Output(as_json=as_json)
    scopes = [chosen.value for chosen in scope or [ScopeName.QUERY]]
    with connect(invocation_of(context)) as client:
        key = client.create_key(name, scopes)
    if output.as_json:
        output.document(key)
        return
    output.note(
        f"Key {key.key_id} ({key.name}: {', '.join(key.scopes)}). "
        "Keep its secret; it cannot be shown again:"
    )
    output.line(key.secret)


@keys.command("list")
def list_keys(context: typer.Context, as_json: JsonOption = False) -> None:
    """List all keys, revoked ones included."""
    from imagedex.cli.connection import connect

    output = Output(as_json=as_json)
    with connect(invocation_of(context)) as client:
        found = client.list_keys()
    if output.as_json:
        output.document({"keys": [key.model_dump(mode="json") for key in found]})
        return
    rows = [
        (
            key.key_id,
            ", ".join(key.scopes),
            key.created_at.isoformat(sep=" ", timespec="seconds"),
            "active" if key.revoked_at is None else "revoked",
            key.name,
        )
        for key in found
    ]
    output.table(("key", "scopes", "created", "state", "name"), rows)


@keys.command("revoke")
def revoke_key(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(help="The key's id, as listed.")],
    as_json: JsonOption = False,
) -> None:
    """Make a key useless at once."""
    from imagedex.cli.connection import connect

    output = Output(as_json=as_json)
    with connect(invocation_of(context)) as client:
        client.revoke_key(key_id)
    if output.as_json:
        output.document({"key_id": key_id, "revoked": True})
    else:
        output.line(f"Key {key_id} is revoked.")
