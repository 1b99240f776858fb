"""``imagedex snapshot`` and ``imagedex rollback``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagedex.cli.commands.search import absolute_text
from imagedex.cli.failures import CommandFailed
from imagedex.cli.invocation import IndexPrefixOption, JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.cli.text import byte_size, count_of

if TYPE_CHECKING:
    from pathlib import Path

    from imagedex.app import Surgery
    from imagedex.segments import Manifest, Snapshot

snapshot = typer.Typer(
    help="Keep states of an index on this machine, and go back to one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The snapshot's name.")]


@snapshot.command("create")
def create_snapshot(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Its name; by default the time and the generation's number."
        ),
    ] = None,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the current generation and what the catalog knows of it. A server may run meanwhile."""
    output = Output(as_json=as_json)
    with _surgery(context, index_prefix) as surgery:
        made = surgery.snapshots.create(name)
    if as_json:
        output.document(_document(made))
    else:
        output.line(made.name)
        output.note(
            f"Generation {made.manifest.generation} with "
            f"{count_of(made.manifest.images, 'image')} ({byte_size(made.bytes)}) is kept."
        )


@snapshot.command("list")
def list_snapshots(
    context: typer.Context,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the snapshots of an index, oldest first."""
    from imagedex.core.errors import CorruptIndex

    output = Output(as_json=as_json)
    with _surgery(context, index_prefix) as surgery:
        found = surgery.snapshots.list()
    sound = [one for one in found if not isinstance(one, CorruptIndex)]
    damaged = [str(one) for one in found if isinstance(one, CorruptIndex)]
    if as_json:
        output.document({"snapshots": [_document(one) for one in sound], "damaged": damaged})
    else:
        rows = [
            (
                one.name,
                one.created_at.isoformat(sep=" ", timespec="seconds"),
                str(one.manifest.generation),
                f"{one.manifest.images:,}",
                byte_size(one.bytes),
                one.manifest.model_name,
            )
            for one in sound
        ]
        output.table(("snapshot", "created", "generation", "images", "size", "model"), rows)
    for text in damaged:
        output.note(text)


@snapshot.command("restore")
def restore_snapshot(
    context: typer.Context,
    name: NameArgument,
    recreate: Annotated[
        bool,
        typer.Option(
            "--recreate",
            help="Make the index anew when all its files are gone, and no mount is missing.",
        ),
    ] = False,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a snapshot the current state of its index again, as a new generation.

    No server may run on the home. What was indexed or removed since the snapshot is found by the
    next scan; vectors of it are made anew.
    """
    output = Output(as_json=as_json)
    with _surgery(context, index_prefix) as surgery, surgery.alone():
        manifest = surgery.snapshots.restore(name, recreate=recreate)
    _write_published(output, manifest, f"Snapshot {name} is current again")


@snapshot.command("delete")
def delete_snapshot(
    context: typer.Context,
    name: NameArgument,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a snapshot; the index stays as it is."""
    output = Output(as_json=as_json)
    with _surgery(context, index_prefix) as surgery:
        surgery.snapshots.delete(name)
    if as_json:
        output.document({"name": name, "deleted": True})
    else:
        output.line(f"Snapshot {name} is deleted.")


def rollback(
    context: typer.Context,
    generation: Annotated[
        int | None,
        typer.Argument(
            metavar="GENERATION",
            min=1,
            help="Which one; by default the last that held other images.",
        ),
    ] = None,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to one of the last generations, which becomes a new one.

    The last three generations are kept. No server may run on the home.
    """
    output = Output(as_json=as_json)
    with _surgery(context, index_prefix) as surgery, surgery.alone():
        manifest = surgery.snapshots.roll_back(generation)
    _write_published(output, manifest, "The earlier state is current again")


@contextmanager
def _surgery(context: typer.Context, index_prefix: Path | None) -> Iterator[Surgery]:
    from imagedex.app import Surgery
    from imagedex.cli.connection import is_remote
    from imagedex.cli.logs import configure_logging

    if is_remote():
        raise CommandFailed(
            "Snapshots are kept on the machine of the index; unset IMAGEDEX_URL there, and set "
            "IMAGEDEX_HOME to the server's."
        )
    invocation = invocation_of(context)
    level = "debug" if invocation.debug else "error"
    configure_logging(level, pretty=True, tracebacks=invocation.debug)
    surgery = Surgery(invocation.settings(), absolute_text(index_prefix))
    try:
        yield surgery
    finally:
        surgery.close()


def _write_published(output: Output, manifest: Manifest, what: str) -> None:
    if output.as_json:
        output.document({"generation": manifest.generation, "num_images": manifest.images})
    else:
        output.line(
            f"{what}, as generation {manifest.generation} with "
            f"{count_of(manifest.images, 'image')}."
        )


def _document(made: Snapshot) -> dict[str, Any]:
    from imagedex.core.times import iso_z

    return {
        "name": made.name,
        "created_at": iso_z(made.created_at),
        "generation": made.manifest.generation,
        "num_images": made.manifest.images,
        "num_failed": made.failed_images,
        "bytes": made.bytes,
        "model_name": made.manifest.model_name,
    }
