"""Write the generated parts of the documentation, or check that they are up to date.

A generated part stands between ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``; the
rest of the file is written by hand.

    python scripts/render_docs.py          write them
    python scripts/render_docs.py --check  exit with 1 when one is not up to date
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from imagedex.cli.program import program
from imagedex.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "docs" / "benchmarks.json"

# The figures that the README shows; all of them are in docs/benchmarks.md.
HEADLINES = frozenset(
    {
        "indexing, model loaded",
        "start to ready, 10,000 vectors",
        "query p50, not cached",
        "query p99, not cached, job running",
        "memory of the server",
        "notify of one image to findable, median",
        "ViT-L-14: indexing, fp32",
        "ViT-L-14: the old worker's loop",
        "ViT-L-14, 118,000 vectors: query p50, fp32",
        "ViT-L-14, 118,000 vectors: query p50, int8",
    }
)

# Defaults that depend on the machine are described instead of computed.
DESCRIBED_DEFAULTS = {"IMAGEDEX_HOME": "`~/.imagedex`"}


def setting_rows(model: type[BaseModel], prefix: str = "IMAGEDEX_") -> Iterator[tuple[str, ...]]:
    """Yield name, default and meaning of every setting of the tree."""
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_rows(field.annotation, variable + "__")
        else:
            default = DESCRIBED_DEFAULTS.get(variable) or _default_text(field.default)
            yield f"`{variable}`", default, str(field.description)


def _default_text(default: object) -> str:
    if default is None or default == ():
        return "not set"
    return f"`{default}`"


def render_settings() -> str:
    """Return the reference of all settings as a table."""
    return _table(("Variable", "Default", "Meaning"), setting_rows(Settings))


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command with the words that call it, the program itself first."""

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield words, command
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(f"{words} {name}", child)

    yield from walk("imagedex", typer.main.get_command(program))


def render_commands() -> str:
    """Return the help of every command, as the command line prints it."""
    sections = []
    for words, command in commands():
        with command.make_context(words, [], resilient_parsing=True, terminal_width=80) as context:
            text = context.get_help()
        level = "##" if " " not in words else "###"
        sections.append(f"{level} `{words}`\n\n```text\n{text.strip()}\n```")
    return "\n\n".join(sections)


def render_benchmarks() -> str:
    """Return the figures of ``docs/benchmarks.json`` with the machine that they were taken on."""
    return _benchmarks(lambda _name: True)


def render_headlines() -> str:
    """Return the few of these figures that tell a newcomer what to expect."""
    return _benchmarks(lambda name: name in HEADLINES)


def _benchmarks(is_shown: Callable[[str], bool]) -> str:
    document: dict[str, Any] = json.loads(BENCHMARKS.read_text("utf-8"))
    machine = document["machine"]
    introduction = (
        f"Taken by `make bench` on {machine['cores']} cores of {machine['processor']} with "
        f"{machine['memory_gigabytes']} GB of memory, Python {machine['python']}, "
        f"{document['taken_at'][:10]}."
    )
    rows = (
        (
            figure["name"],
            f"{figure['value']:g} {figure['unit']}".strip(),
            figure["promised"] + ("" if figure["is_met"] else " (not met)"),
        )
        for figure in document["figures"]
        if is_shown(figure["name"])
    )
    return introduction + "\n\n" + _table(("Figure", "Measured", "Promised"), rows)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "settings": ("docs/settings.md", render_settings),
    "commands": ("docs/cli.md", render_commands),
    "benchmarks": ("docs/benchmarks.md", render_benchmarks),
    "headlines": ("README.md", render_headlines),
}


def with_part(text: str, name: str, content: str) -> str:
    """Return ``text`` with the generated part ``name`` replaced; it must be there exactly once."""
    begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end) or begin in after:
        raise ValueError(f"The markers {begin!r} and {end!r} must each be there once, in order.")
    return f"{before}{begin}\n{content}\n{end}{after}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say what is not up to date")
    is_check = parser.parse_args().check
    stale = []
    for name, (file_name, render) in PARTS.items():
        path = ROOT / file_name
        old = path.read_text("utf-8")
        new = with_part(old, name, render())
        if new != old:
            stale.append(f"{file_name} ({name})")
            if not is_check:
                path.write_text(new, "utf-8")
    if is_check and stale:
        sys.exit("Not up to date; run `make docs`: " + ", ".join(stale))


if __name__ == "__main__":
    main()
