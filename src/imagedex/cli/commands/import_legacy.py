"""``imagedex import-legacy``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagedex.cli.commands.search import absolute_text
from imagedex.cli.invocation import IndexPrefixOption, JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.cli.text import count_of

if TYPE_CHECKING:
    from imagedex.client import JobState
    from imagedex.legacy import ImportReport

OLD_MODEL = "clip-ViT-L-14"

LegacyPrefixArgument = Annotated[
    Path, typer.Argument(metavar="PREFIX", help="What stands before .parquet and .faiss.")
]
RootOption = Annotated[
    Path | None,
    typer.Option("--root", metavar="DIR", help="What the old index's relative paths are below."),
]
PathColumnOption = Annotated[
    str | None,
    typer.Option("--path-column", metavar="NAME", help="The Parquet column of the paths."),
]
VectorColumnOption = Annotated[
    str | None,
    typer.Option("--vector-column", metavar="NAME", help="The Parquet column of the vectors."),
]


def import_legacy(
    context: typer.Context,
    prefix: LegacyPrefixArgument,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="The model that made the vectors.")
    ] = OLD_MODEL,
    root: RootOption = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state", metavar="FILE", help="The old state file; tells which files have changed."
        ),
    ] = None,
    path_column: PathColumnOption = None,
    vector_column: VectorColumnOption = None,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Adopt an old index (PREFIX.parquet and PREFIX.faiss) without embedding anything.

    The old files are only read. Each image's file is read once, for its hash, size and date;
    images whose file is missing, broken or outside IMAGEDEX_IMAGE_ROOTS are left out and listed.
    Unless those roots are set, --root is the image root of this run.

    When it is ended, the same command goes on from there. Images that the index has already are
    left as they are.
    """
    from imagedex.cli.connection import client_of, local_application
    from imagedex.cli.local_roots import with_local_roots
    from imagedex.cli.outcome import fetch_outcome, write_outcome
    from imagedex.cli.progress import JobProgress
    from imagedex.legacy import ImportOptions

    output = Output(as_json=as_json)
    invocation = invocation_of(context)
    options = ImportOptions(
        prefix=_absolute(prefix),
        model=model,
        root=None if root is None else _absolute(root),
        state=None if state is None else _absolute(state),
        path_column=path_column,
        vector_column=vector_column,
    )
    settings = with_local_roots(invocation.settings(), [options.root] if options.root else [])
    with local_application(settings, run_jobs=True, debug=invocation.debug) as application:
        output.note("Checking the old index.")
        job, report = application.legacy.adopt(options, index_prefix=absolute_text(index_prefix))
        for line in _findings(report):
            output.note(line)
        with client_of(application) as client:
            with JobProgress(output.errors) as progress:
                last: JobState = client.wait(job.job_id, progress.show)
            outcome = fetch_outcome(client, last)
        write_outcome(output, outcome, also={"old_index": asdict(report)})
    if settings.model != model:
        output.note(f"To search it, set IMAGEDEX_MODEL={model} (imagedex models pull {model}).")


def _findings(report: ImportReport) -> list[str]:
    """Say what the old index holds, and what is odd about it."""
    vectors = report.faiss or f"column {report.vector_column!r}"
    lines = [
        (
            f"{count_of(report.rows, 'row')}; paths from column {report.path_column!r}, "
            f"{report.dim} numbers a vector from {vectors}."
        )
    ]
    if report.compared:
        lines.append("The vectors of both files agree in every row.")
    elif report.faiss is not None:
        lines.append("Only the Faiss file has vectors: that rows belong together is not checked.")
    odd = (
        (report.scaled, "not of unit length: they are scaled to it"),
        (report.unusable, "zero or not finite: their images are left out"),
    )
    lines += [f"{count_of(count, 'vector')}: {what}." for count, what in odd if count]
    if report.duplicates:
        lines.append(
            f"{count_of(report.duplicates, 'row')}: the path comes again in a later row, which "
            "counts."
        )
    if report.unplaced:
        lines.append(
            f"{count_of(report.unplaced, 'row')}: without a path below an image root, left out."
        )
    if report.pending:
        lines.append(f"{count_of(report.pending, 'image')} waited for the old scripts: index them.")
    return lines


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links.
