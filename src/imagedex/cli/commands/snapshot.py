"""``imagedex snapshot`` and ``imagedex rollback``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    from imagedex.client import ImagedexClient
    from imagedex.segments import Manifest, Snapshot

snapshot = typer.Typer(
    help="Keep states of an index, and go back to one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The snapshot's name.")]

SnapshotDocument = dict[str, Any]
"""A snapshot as the API tells it."""


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
    from imagedex.cli.connection import is_remote, remote_client

    output = Output(as_json=as_json)
    if is_remote():
        with remote_client() as client:
            prefix = absolute_text(index_prefix)
            receipt = client.create_snapshot(name, index_prefix=prefix)
            _wait(client, receipt.job_id)
            made = next(
                one
                for one in client.snapshots(index_prefix=prefix).snapshots
                if one.name == receipt.name
            ).model_dump(mode="json")
    else:
        with _surgery(context, index_prefix) as surgery:
            made = _document(surgery.snapshots.create(name))
    if as_json:
        output.document(made)
    else:
        output.line(made["name"])
        output.note(
            f"Generation {made['generation']} with "
            f"{count_of(made['num_images'], 'image')} ({byte_size(made['bytes'])}) is kept."
        )


@snapshot.command("list")
def list_snapshots(
    context: typer.Context,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the snapshots of an index, oldest first."""
    from imagedex.cli.connection import is_remote, remote_client

    output = Output(as_json=as_json)
    if is_remote():
        with remote_client() as client:
            found = client.snapshots(index_prefix=absolute_text(index_prefix))
        sound = [one.model_dump(mode="json") for one in found.snapshots]
        damaged: Sequence[str] = found.damaged
    else:
        sound, damaged = _local_snapshots(context, index_prefix)
    if as_json:
        output.document({"snapshots": sound, "damaged": list(damaged)})
    else:
        rows = [
            (
                one["name"],
                one["created_at"],
                str(one["generation"]),
                f"{one['num_images']:,}",
                byte_size(one["bytes"]),
                one["model_name"],
            )
            for one in sound
        ]
        output.table(("snapshot", "created", "generation", "images", "size", "model"), rows)
    for text in damaged:
        output.note(text)


def _local_snapshots(
    context: typer.Context, index_prefix: Path | None
) -> tuple[list[SnapshotDocument], list[str]]:
    from imagedex.core.errors import CorruptIndex

    with _surgery(context, index_prefix) as surgery:
        found = surgery.snapshots.list()
    return (
        [_document(one) for one in found if not isinstance(one, CorruptIndex)],
        [str(one) for one in found if isinstance(one, CorruptIndex)],
    )


@snapshot.command("restore")
def restore_snapshot(
    context: typer.Context,
    name: NameArgument,
    recreate: Annotated[
        bool,
        typer.Option(
            "--recreate",
            help="Make the index anew when all its files are gone, and no mount is missing; only "
            "without a server.",
        ),
    ] = False,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a snapshot the current state of its index again, as a new generation.

    A server (IMAGEDEX_URL) does so before the other jobs of the index; without one, none may run
    on the home. What was indexed or removed since the snapshot is found by the next scan; vectors
    of it are made anew.
    """
    from imagedex.cli.connection import is_remote, remote_client

    output = Output(as_json=as_json)
    if is_remote():
        if recreate:
            raise typer.BadParameter(
                "stop the server and unset IMAGEDEX_URL for it", param_hint="'--recreate'"
            )
        with remote_client() as client:
            prefix = absolute_text(index_prefix)
            _wait(client, client.restore_snapshot(name, index_prefix=prefix).job_id)
            stats = client.stats(index_prefix=prefix)
        generation, images = stats.generation, stats.num_images
    else:
        with _surgery(context, index_prefix) as surgery, surgery.alone():
            manifest = surgery.snapshots.restore(name, recreate=recreate)
        generation, images = manifest.generation, manifest.images
    _write_published(output, generation, images, f"Snapshot {name} is current again")


@snapshot.command("delete")
def delete_snapshot(
    context: typer.Context,
    name: NameArgument,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a snapshot; the index stays as it is."""
    from imagedex.cli.connection import is_remote, remote_client

    output = Output(as_json=as_json)
    if is_remote():
        with remote_client() as client:
            client.delete_snapshot(name, index_prefix=absolute_text(index_prefix))
    else:
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
    from imagedex.cli.connection import is_remote

    if is_remote():
        raise CommandFailed(
            "A generation is gone back to on the machine of the index, without a server; unset "
            "IMAGEDEX_URL there, and set IMAGEDEX_HOME to the server's."
        )
    output = Output(as_json=as_json)
    with _surgery(context, index_prefix) as surgery, surgery.alone():
        manifest: Manifest = surgery.snapshots.roll_back(generation)
    _write_published(
        output, manifest.generation, manifest.images, "The earlier state is current again"
    )


@contextmanager
def _surgery(context: typer.Context, index_prefix: Path | None) -> Iterator[Surgery]:
    from imagedex.app import Surgery
    from imagedex.cli.logs import configure_logging

    invocation = invocation_of(context)
    level = "debug" if invocation.debug else "error"
    configure_logging(level, pretty=True, tracebacks=invocation.debug)
    surgery = Surgery(invocation.settings(), absolute_text(index_prefix))
    try:
        yield surgery
    finally:
        surgery.close()


def _wait(client: ImagedexClient, job_id: str) -> None:
    """Wait for a server's job. Raises CommandFailed unless it completes."""
    state = client.wait(job_id)
    if state.status != "completed":
        raise CommandFailed(f"Job {job_id} is {state.status}: {state.error or 'by request'}")


def _write_published(output: Output, generation: int, images: int, what: str) -> None:
    if output.as_json:
        output.document({"generation": generation, "num_images": images})
    else:
        output.line(f"{what}, as generation {generation} with {count_of(images, 'image')}.")


def _document(made: Snapshot) -> SnapshotDocument:
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
