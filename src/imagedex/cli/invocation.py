"""What is given before the command, for all commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from imagedex.settings import Settings


@dataclass(frozen=True, slots=True)
class Invocation:
    """The global options; found as ``context.obj``."""

    config: Path | None
    debug: bool

    def settings(self, **overrides: Any) -> Settings:
        """Read the settings; what is given here wins over environment and file.

        Raises SettingsError.
        """
        from imagedex.settings import load_settings

        return load_settings(self.config, **overrides)


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document to stdout and nothing else.")
]
IndexPrefixOption = Annotated[
    Path | None,
    typer.Option(
        "--index-prefix", help="The index to use instead of the default one.", metavar="PREFIX"
    ),
]


def invocation_of(context: typer.Context) -> Invocation:
    """Return the global options of this run."""
    invocation = context.find_root().obj
    assert isinstance(invocation, Invocation)  # noqa: S101 - set by the root callback, always.
    return invocation
