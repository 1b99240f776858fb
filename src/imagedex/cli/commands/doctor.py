"""``imagedex doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagedex.cli.commands.search import absolute_text
from imagedex.cli.failures import ExitCode
from imagedex.cli.invocation import IndexPrefixOption, JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.cli.text import byte_size, count_of

if TYPE_CHECKING:
    from imagedex.upkeep import Diagnosis


def doctor(
    context: typer.Context,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Make good what can be made good from the Parquet files; no server may run.",
        ),
    ] = False,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check an index on this machine: its files, their checksums, and the catalog.

    Reads everything and changes nothing; a server may run meanwhile, and the database may be
    gone. With --repair, what can be made good is made good first. The exit code is 0 when the
    index is healthy (now) and 1 when something was found (and is left).
    """
    from imagedex.app import Surgery
    from imagedex.cli.logs import configure_logging

    output = Output(as_json=as_json)
    invocation = invocation_of(context)
    settings = invocation.settings()
    level = "debug" if invocation.debug else "error"  # What is done is told below.
    configure_logging(level, pretty=True, tracebacks=invocation.debug)
    surgery = Surgery(settings, absolute_text(index_prefix))
    try:
        actions = surgery.repair() if repair else []
        diagnosis = surgery.examine()
    finally:
        surgery.close()
    if as_json:
        output.document({**_document(diagnosis), "actions": actions})
    else:
        for action in actions:
            output.line(f"repair: {action}")
        _write(output, diagnosis)
    if not diagnosis.is_healthy:
        raise typer.Exit(ExitCode.FAILED)


def _document(diagnosis: Diagnosis) -> dict[str, Any]:
    return {
        "index_prefix": str(diagnosis.index_prefix),
        "healthy": diagnosis.is_healthy,
        "generation": diagnosis.generation,
        "num_images": diagnosis.images,
        "files_checked": diagnosis.files_checked,
        "bytes_checked": diagnosis.bytes_checked,
        "findings": [
            {
                "kind": finding.kind.value,
                "path": finding.path,
                "message": finding.message,
                "remedy": finding.remedy,
            }
            for finding in diagnosis.findings
        ],
    }


def _write(output: Output, diagnosis: Diagnosis) -> None:
    for finding in diagnosis.findings:
        output.line(f"{finding.kind.value}: {finding.message}")
        output.line(f"  To do: {finding.remedy}.")
    if diagnosis.findings:
        output.line(f"{count_of(len(diagnosis.findings), 'finding')}.")
        return
    if diagnosis.generation == 0:
        output.line(f"Nothing is indexed at {str(diagnosis.index_prefix)!r}.")
        return
    checked = f"{count_of(diagnosis.files_checked, 'file')}, {byte_size(diagnosis.bytes_checked)}"
    output.line(
        f"Healthy: generation {diagnosis.generation} with {count_of(diagnosis.images, 'image')} "
        f"({checked}); files, search structures and catalog agree."
    )
