"""Measure an index of many vectors, print the figures and write them to a JSON file."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path

from bench.figures import Bench
from bench.report import document, print_table
from bench.scale import appending, changing, lance, searching, serving
from bench.scale.library import Library

MEASUREMENTS = ("rebuild", "search", "filters", "serve", "append", "lance")
_SMALLER = (100, 10)  # Appending is measured at these fractions of the size as well.


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; return 1 when a figure was not met."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--only", choices=MEASUREMENTS, action="append")
    parser.add_argument(
        "--folder", type=Path, help="keeps the indexes for the next run: 7 GB for a million rows"
    )
    parser.add_argument("--output", type=Path, default=Path("bench-scale-results.json"))
    options = parser.parse_args(arguments)
    wanted = options.only or MEASUREMENTS
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="imagedex-scale-", dir=options.folder) as scratch,
        nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as folder,
        ExitStack() as stack,
    ):
        bench = Bench(Path(scratch), Path(scratch), Path(scratch))
        libraries = [
            stack.enter_context(
                closing(Library(Path(folder) / str(rows), rows=rows, dim=options.dim))
            )
            for rows in (*(options.rows // part for part in _SMALLER), options.rows)
        ]
        _measure(bench, libraries, wanted)
    print_table(bench.figures)
    options.output.write_text(json.dumps(document(bench.figures), indent=2) + "\n")
    return 0 if all(figure.is_met for figure in bench.figures) else 1


def _measure(bench: Bench, libraries: Sequence[Library], wanted: Sequence[str]) -> None:
    for library in libraries:
        library.make()
    *smaller, whole = libraries
    for library in smaller:
        library.merge()
    if max(segment.rows for segment in whole.manifest.segments) < whole.rows:
        whole.merge()  # Not because of some appended ones: it takes ten minutes.
    if "rebuild" in wanted:
        changing.rebuild(bench, whole)
    measurements: dict[str, Callable[[], None]] = {
        "search": lambda: searching.search(bench, whole),
        "filters": lambda: searching.search_with_filters(bench, whole),
        "serve": lambda: serving.serve(bench, whole),
        "append": lambda: appending.append(bench, libraries),
        "lance": lambda: lance.compare(bench, whole),
    }
    for name, measure in measurements.items():
        if name in wanted:
            measure()


if __name__ == "__main__":
    sys.exit(main())
