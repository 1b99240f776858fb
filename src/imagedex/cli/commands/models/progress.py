"""How a pull goes on, as a bar on a terminal and as some lines elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from imagedex.cli.output import write_note
from imagedex.cli.text import byte_size, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


class PullProgress:
    """The watcher of one pull; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = _make_bar(console) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """Write a line, above the bar if there is one."""
        if self._bar is None:
            write_note(text)
        else:
            self._console.print(printable(text), soft_wrap=True)

    def begin(self, total_bytes: int) -> None:
        """Show how much is to come."""
        if self._bar is None:
            write_note(f"Getting {byte_size(total_bytes)}.")
        else:
            self._bar.add_task("Getting files", total=total_bytes)

    def advance(self, count: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], count)


def _make_bar(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
