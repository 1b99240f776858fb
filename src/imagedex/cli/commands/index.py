"""``imagedex index``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagedex.cli.commands.search import absolute_text
from imagedex.cli.invocation import IndexPrefixOption, Invocation, JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.cli.watching import watch, write_receipt

if TYPE_CHECKING:
    from imagedex.client import ImagedexClient, NotifyReceipt, TriggerReceipt


class PriorityName(StrEnum):
    """Which job goes first, as words of ``--priority``."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


def index(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="One directory, or some image files."),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Embed unchanged images again too (a directory only).")
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="GLOB",
            help="Pass over files and directories of this name, beside those that every scan "
            "passes over (a directory only). May be given several times.",
        ),
    ] = None,
    priority: Annotated[
        PriorityName, typer.Option("--priority", help="Which job goes first.")
    ] = PriorityName.NORMAL,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Leave the job to the server and return at once.")
    ] = False,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Index a directory, or bring some image files up to date.

    Only what is new or changed is read. Files may also be gone: then they leave the index.

    Without a server (IMAGEDEX_URL) this process does the work itself. Then, unless
    IMAGEDEX_IMAGE_ROOTS is set, what is named here is the image root of this run.

    The exit code is 0 also when single images failed, and 1 when the job did.
    """
    from imagedex.cli.connection import is_remote

    target = _target_of(paths)
    if force and target.directory is None:
        raise typer.BadParameter("it goes with a directory", param_hint="'--force'")
    if ignore and target.directory is None:
        raise typer.BadParameter("it goes with a directory", param_hint="'--ignore'")
    if no_wait and not is_remote():
        raise typer.BadParameter(
            "without a server nobody would do the work; set IMAGEDEX_URL and IMAGEDEX_API_KEY",
            param_hint="'--no-wait'",
        )
    output = Output(as_json=as_json)
    with _indexing_client(invocation_of(context), target) as client:
        receipt = _submit(
            client, target, absolute_text(index_prefix), force, ignore or (), priority
        )
        if no_wait:
            write_receipt(output, receipt)
        else:
            watch(output, client, receipt.job_id)


@dataclass(frozen=True, slots=True)
class _Target:
    """What is to be indexed; paths are absolute."""

    directory: str | None
    files: tuple[str, ...]

    @property
    def roots(self) -> tuple[Path, ...]:
        """The directories that hold it."""
        if self.directory is not None:
            return (Path(self.directory),)
        return tuple(dict.fromkeys(Path(file).parent for file in self.files))


def _target_of(paths: Sequence[Path]) -> _Target:
    named = [absolute_text(path) or "" for path in paths]
    directories = [path for path in named if _names_directory(Path(path))]
    if not directories:
        return _Target(None, tuple(named))
    if len(named) > 1:
        raise typer.BadParameter(
            f"{directories[0]!r} is a directory; name one directory alone, or only files",
            param_hint="'PATH'",
        )
    return _Target(named[0], ())


def _names_directory(path: Path) -> bool:
    """Say whether a path means a directory.

    It need not be there: files may be gone, and a server may see other mounts than this
    machine. Then a name that looks like an image's means a file.
    """
    if path.exists():
        return path.is_dir()
    from imagedex.ingest.scan import has_image_name

    return not has_image_name(path.name)


@contextmanager
def _indexing_client(invocation: Invocation, target: _Target) -> Iterator[ImagedexClient]:
    from imagedex.cli.connection import is_remote, local_client, remote_client

    if is_remote():
        with remote_client() as client:
            yield client
        return
    from imagedex.cli.failures import CommandFailed
    from imagedex.cli.local_roots import with_local_roots
    from imagedex.core.errors import HomeInUse

    settings = with_local_roots(invocation.settings(), target.roots)
    try:
        with local_client(settings, run_jobs=True, debug=invocation.debug) as client:
            yield client
    except HomeInUse as error:
        raise CommandFailed(
            f"{error} To hand it this work, set IMAGEDEX_URL to its address and IMAGEDEX_API_KEY "
            "to a key with the scope index (imagedex keys create --name NAME --scope index)."
        ) from error


def _submit(
    client: ImagedexClient,
    target: _Target,
    index_prefix: str | None,
    force: bool,
    ignore: Sequence[str],
    priority: PriorityName,
) -> TriggerReceipt | NotifyReceipt:
    if target.directory is None:
        return client.notify(target.files, index_prefix=index_prefix, priority=priority.value)
    return client.trigger(
        target.directory,
        index_prefix=index_prefix,
        force_reindex=force,
        ignore=ignore,
        priority=priority.value,
    )
