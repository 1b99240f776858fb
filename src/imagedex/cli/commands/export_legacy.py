"""``imagedex export-legacy``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from imagedex.cli.commands.search import absolute_text
from imagedex.cli.invocation import IndexPrefixOption, JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.cli.text import count_of


def export_legacy(
    context: typer.Context,
    prefix: Annotated[
        Path,
        typer.Argument(
            metavar="OUT_PREFIX", help="What stands before .parquet, .faiss and .state.json."
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Write paths below it relative to it."),
    ] = None,
    path_column: Annotated[
        str,
        typer.Option("--path-column", metavar="NAME", help="What the column of paths is called."),
    ] = "path",
    vector_column: Annotated[
        str,
        typer.Option(
            "--vector-column", metavar="NAME", help="What the column of vectors is called."
        ),
    ] = "embedding",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace files that are there already.")
    ] = False,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an index as the old scripts kept theirs: a pair of files and a state file.

    It is the current generation, while queries and jobs go on. The state file can be read by its
    owner alone.
    """
    from imagedex.cli.connection import local_application
    from imagedex.legacy import ExportOptions

    output = Output(as_json=as_json)
    invocation = invocation_of(context)
    options = ExportOptions(
        prefix=Path(os.path.abspath(prefix)),  # noqa: PTH100 - resolve() would follow links.
        root=None if root is None else Path(os.path.abspath(root)),  # noqa: PTH100 - likewise.
        path_column=path_column,
        vector_column=vector_column,
        replaces=replace,
    )
    settings = invocation.settings()
    with local_application(settings, run_jobs=False, debug=invocation.debug) as application:
        report = application.legacy.export(options, index_prefix=absolute_text(index_prefix))
    if as_json:
        output.document(asdict(report))
        return
    output.line(
        f"{count_of(report.images, 'image')} of generation {report.generation}, {report.dim} "
        f"numbers a vector of {report.model}:"
    )
    for file in report.files:
        output.line(f"  {file}")
