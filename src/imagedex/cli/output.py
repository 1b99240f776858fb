"""What commands write: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from imagedex.cli.text import printable

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console


class Output:
    """The two streams of one command.

    On a terminal, tables are drawn; in a pipe they are lines of tab-separated cells below a
    header. With ``as_json`` stdout carries one JSON document and nothing else. All text is
    made harmless here, so callers hand over file names as they are.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json

    @cached_property
    def errors(self) -> Console:
        """The console of stderr, for progress."""
        from rich.console import Console

        return Console(stderr=True, markup=False, highlight=False, emoji=False)

    @cached_property
    def _results(self) -> Console:
        from rich.console import Console

        return Console(markup=False, highlight=False, emoji=False)

    def document(self, value: BaseModel | Mapping[str, Any]) -> None:
        """Write one JSON document to stdout; ASCII, so that any terminal and locale can."""
        if not isinstance(value, Mapping):
            value = value.model_dump(mode="json")
        sys.stdout.write(json.dumps(value, indent=2) + "\n")

    def line(self, text: str) -> None:
        """Write one line of results to stdout."""
        sys.stdout.write(printable(text) + "\n")

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Write a table of results to stdout; the last column takes what room is left."""
        if not sys.stdout.isatty():
            for cells in (columns, *rows):
                self.line_of_cells(cells)
            return
        self._results.print(make_table(columns, rows))

    def line_of_cells(self, cells: Sequence[str]) -> None:
        """Write cells with tabs between them to stdout."""
        sys.stdout.write("\t".join(printable(cell) for cell in cells) + "\n")

    def fields(self, fields: Sequence[tuple[str, str]]) -> None:
        """Write names with their values to stdout, one a line."""
        width = max(len(name) for name, _ in fields)
        for name, value in fields:
            self.line(f"{name.ljust(width)}  {value}")

    def note(self, text: str) -> None:
        """Write one line for the user to stderr."""
        write_note(text)


def write_note(text: str) -> None:
    """Write one line for the user to stderr."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def make_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    """Return a Rich table; paths are folded over lines rather than cut, so nothing is lost."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for position, name in enumerate(columns):
        is_last = position == len(columns) - 1
        table.add_column(Text(name), overflow="fold", no_wrap=not is_last)
    for cells in rows:
        # Text objects are drawn as they are; a str would be read as Rich markup.
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table
