"""What a pull shows while it runs."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from imagedex.cli.commands.models.progress import PullProgress


def test_elsewhere_than_on_a_terminal_only_lines_are_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with PullProgress(Console(file=StringIO())) as progress:
        progress.note("Waiting for \x1b[2J it.")
        progress.begin(1_500_000)
        progress.advance(1_500_000)
    assert capsys.readouterr().err == "Waiting for \\x1b[2J it.\nGetting 1.5 MB.\n"


def test_a_terminal_shows_how_much_is_there_and_nothing_that_it_could_obey() -> None:
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=100, color_system=None)
    with PullProgress(console) as progress:
        progress.note("Waiting for \x1b[2J it.")
        progress.begin(1_500_000)
        progress.advance(2_000_000)
        progress.advance(-500_000)
    assert "\\x1b[2J it." in shown.getvalue()
    assert "1.5/1.5 MB" in shown.getvalue()
