"""``imagedex models export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imagedex.cli.invocation import JsonOption
from imagedex.cli.output import Output


def export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A directory that transformers has saved, or a repository as OWNER/NAME.",
        ),
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The directory to make; it must not exist.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Turn a CLIP or SigLIP checkpoint of transformers into a model directory.

    Needs imagedex[export]. Each graph is held against torch before OUT appears, complete.
    """
    from imagedex.models.export import export_checkpoint

    output = Output(as_json=as_json)
    model = export_checkpoint(checkpoint, out)
    directory = str(model.files.directory)
    if output.as_json:
        output.document({"checkpoint": checkpoint, "directory": directory, "dim": model.dim})
    else:
        output.line(f"{directory} is a model of {model.dim} dimensions. Install it with:")
        output.line(f"    imagedex models pull NAME --from-dir {directory}")
