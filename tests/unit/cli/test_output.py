"""Results on stdout."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from imagedex.cli.output import Output, make_table

HOSTILE = "/photos/\x1b[31m[red]x[/red]\u202e\n.png"


def test_a_piped_table_is_lines_of_cells_with_file_names_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Output().table(("rank", "path"), [("1", HOSTILE), ("2", "/photos/" + "long" * 100)])

    header, first, second = capsys.readouterr().out.splitlines()
    assert header == "rank\tpath"
    assert first == r"1" + "\t" + r"/photos/\x1b[31m[red]x[/red]\u202e\n.png"
    assert second.endswith("long" * 100)


def test_a_drawn_table_obeys_no_markup_and_loses_nothing_of_a_long_path() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=40, force_terminal=True, color_system=None)

    console.print(make_table(("rank", "path"), [("1", HOSTILE), ("2", "/p/" + "x" * 100)]))

    drawn = screen.getvalue()
    assert "\x1b[31m" not in drawn
    assert "[red]x[/red]" in drawn.replace("\n", "").replace(" ", "")
    assert drawn.count("x") == 100 + 2  # The hostile name has an x and the escape \x1b.


def test_a_document_is_ascii_json_whatever_the_file_names_hold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = {"path": "/photos/ü\x9b\udcff東京\n"}

    Output(as_json=True).document(document)

    written = capsys.readouterr().out
    assert written.isascii()
    assert json.loads(written) == document


def test_notes_go_to_stderr_so_that_results_stay_pure(capsys: pytest.CaptureFixture[str]) -> None:
    Output().note("look \x1b[0m here")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "look \\x1b[0m here\n"


def test_fields_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    Output().fields([("a", "1"), ("long name", "2")])

    assert capsys.readouterr().out == "a          1\nlong name  2\n"
