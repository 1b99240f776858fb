"""Command lines that are wrong, and how errors end a command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imagedex.cli.program import run_command_line

HEAVY = ("distributed", "faiss", "onnxruntime", "numpy", "fastapi", "sqlalchemy", "PIL", "httpx")


@pytest.mark.parametrize("command", [[], ["index"], ["jobs", "show"], ["keys", "create"], ["eval"]])
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    program = (
        "import sys\n"
        "from imagedex.cli import main\n"
        "try:\n"
        f"    sys.argv[1:] = [*{command!r}, '--help']\n"
        "    main()\n"
        "except SystemExit as ending:\n"
        "    assert ending.code == 0, ending.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "Usage: imagedex" in run.stdout
    assert run.stderr.strip() == "[]"


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["--version"]) == 0
    assert capsys.readouterr().out.startswith("imagedex ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nonsense"], "No such command"),
        (["search"], "nothing to look for"),
        (["search", "a cat", "-k", "0"], "top-k"),
        (["search", "a cat", "-k", "1001"], "top-k"),
        (["index"], "Missing argument"),
        (["index", ".", "a.png"], "name one directory alone"),
        (["index", "--force", "a.png"], "goes with a directory"),
        (["index", "--ignore", "*_thumb.png", "a.png"], "goes with a directory"),
        (["index", "--no-wait", "."], "IMAGEDEX_URL"),
        (["index", "--priority", "urgent", "."], "urgent"),
        (["jobs", "--status", "running"], "No such option"),
        (["jobs", "--json", "list"], "imagedex jobs list --json"),
        (["jobs", "list", "--status", "lost"], "lost"),
        (["keys", "create"], "--name"),
        (["keys", "create", "--name", "n", "--scope", "root"], "root"),
        (["serve", "--port", "70000"], "--port"),
        (["eval", "captions.tsv"], "--images"),
    ],
)
def test_a_wrong_command_line_is_usage_error_two(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(arguments) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in " ".join(captured.err.split())
    assert "Traceback" not in captured.err


def test_a_missing_settings_file_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = tmp_path / "imagedex.toml"

    assert run_command_line(["--config", str(missing), "stats"]) == 78
    assert str(missing) in capsys.readouterr().err


def test_a_wrong_setting_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEDEX_HOME", str(tmp_path))
    monkeypatch.setenv("IMAGEDEX_SERVER__PORT", "many")

    assert run_command_line(["stats"]) == 78
    assert "server.port" in capsys.readouterr().err


def test_a_url_without_a_key_says_which_variable_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEDEX_URL", "http://127.0.0.1:1")

    assert run_command_line(["stats"]) == 1
    assert "IMAGEDEX_API_KEY" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEDEX_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("IMAGEDEX_API_KEY", "a-key")

    assert run_command_line(["search", "a cat"]) == 1

    error = capsys.readouterr().err
    assert error.startswith("Error: Cannot reach http://127.0.0.1:1")
    assert error.count("\n") == 1


def test_debug_shows_where_an_error_came_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEDEX_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("IMAGEDEX_API_KEY", "a-key")

    assert run_command_line(["--debug", "stats"]) == 1
    assert "Traceback" in capsys.readouterr().err
