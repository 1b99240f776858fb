"""``imagedex compare``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagedex.cli.commands.import_legacy import PathColumnOption, RootOption, VectorColumnOption
from imagedex.cli.commands.search import absolute_text
from imagedex.cli.invocation import IndexPrefixOption, JsonOption, invocation_of
from imagedex.cli.output import Output

if TYPE_CHECKING:
    from imagedex.legacy import AgreementReport

_WORST_SHOWN = 5


def compare(
    context: typer.Context,
    legacy: Annotated[
        Path,
        typer.Option(
            "--legacy", metavar="PREFIX", help="The old index: what stands before .parquet."
        ),
    ],
    queries: Annotated[
        Path, typer.Option("--queries", metavar="FILE", help="Texts to ask, one a line, in UTF-8.")
    ],
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", min=1, max=1000, help="How many images are compared.")
    ] = 10,
    root: RootOption = None,
    path_column: PathColumnOption = None,
    vector_column: VectorColumnOption = None,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask an old index and this one the same texts, and tell how far they agree.

    Overlap is the share of the old best images that are among the new best; the rank correlation
    is Kendall's tau of those that both found. Needs the model that made the vectors.
    """
    from imagedex.cli.connection import local_application
    from imagedex.legacy import CompareOptions

    output = Output(as_json=as_json)
    invocation = invocation_of(context)
    texts = _read_queries(queries)
    options = CompareOptions(
        prefix=Path(os.path.abspath(legacy)),  # noqa: PTH100 - resolve() would follow links.
        root=None if root is None else Path(os.path.abspath(root)),  # noqa: PTH100 - likewise.
        path_column=path_column,
        vector_column=vector_column,
        top_k=top_k,
    )
    settings = invocation.settings()
    with local_application(settings, run_jobs=False, debug=invocation.debug) as application:
        report = application.legacy.compare(
            options, texts, index_prefix=absolute_text(index_prefix)
        )
    _write_report(output, report)


def _read_queries(file: Path) -> list[str]:
    from imagedex.cli.failures import CommandFailed

    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise CommandFailed(f"{str(file)!r} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{str(file)!r} is not UTF-8 text: {error}.") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise CommandFailed(f"{str(file)!r} holds no text; write one query a line.")
    return texts


def _write_report(output: Output, report: AgreementReport) -> None:
    if output.as_json:
        output.document(
            {
                "overlap": report.overlap,
                "same_first": report.same_first,
                "rank_correlation": report.rank_correlation,
                **asdict(report),
            }
        )
        return
    correlation = report.rank_correlation
    output.fields(
        [
            ("queries", f"{len(report.queries):,}"),
            ("images", f"{report.old_images:,} old, {report.new_images:,} new"),
            (f"overlap@{report.top_k}", f"{report.overlap:.4f}"),
            ("same first", f"{report.same_first:.4f}"),
            ("rank correlation", "none" if correlation is None else f"{correlation:.4f}"),
        ]
    )
    worst = sorted(report.queries, key=lambda query: query.overlap)[:_WORST_SHOWN]
    for query in worst:
        if query.overlap < 1:
            output.note(f"overlap {query.overlap:.2f}: {query.text}")
