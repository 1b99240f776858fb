"""``imagedex models quantize``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagedex.cli.commands.models.agreement import METHOD, agreement_document, agreement_fields
from imagedex.cli.commands.models.own_files import files_directory, threads_of
from imagedex.cli.invocation import JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.cli.text import byte_size

if TYPE_CHECKING:
    from imagedex.models.quantisation import Quantisation


class Method(StrEnum):
    """How the image half is quantised."""

    AUTO = "auto"
    CALIBRATED = "calibrated"
    DYNAMIC = "dynamic"


def quantize(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="An installed model, or the path of a directory with its files."
        ),
    ],
    images: Annotated[
        Path, typer.Option("--images", metavar="DIR", help="A folder of your own pictures.")
    ],
    count: Annotated[
        int,
        typer.Option(
            "--count", metavar="N", help="How many of them calibrate the model, at most.", min=1
        ),
    ] = 300,
    method: Annotated[
        Method,
        typer.Option(
            "--method",
            help="calibrated: fixed scales, found on the pictures (needs imagedex[int8]); "
            "dynamic: scales found anew for each input; auto: what is faster on this CPU.",
        ),
    ] = Method.AUTO,
    as_json: JsonOption = False,
) -> None:
    """Make the int8 form of a model, once, and keep it beside the model.

    Prints how far it agrees with float32 on pictures that did not calibrate it. Making it again
    replaces it; an index that was made with the form before is refused then.
    """
    from imagedex.app import decode_limits
    from imagedex.embedding.clip.int8_record import QuantisationMethod
    from imagedex.models.quantisation import quantise

    output = Output(as_json=as_json)
    settings = invocation_of(context).settings()
    directory = files_directory(name, settings)
    made = quantise(
        name,
        directory,
        images,
        count=count,
        method=None if method is Method.AUTO else QuantisationMethod(method.value),
        threads=threads_of(settings),
        limits=decode_limits(settings),
        reduced_decoding=settings.decoding.reduced,
        on_note=output.note,
    )
    _write(output, name, made)


def _write(output: Output, name: str, made: Quantisation) -> None:
    image = made.image
    size = sum(file.bytes for file in (*image.files, *made.text.files))
    if output.as_json:
        output.document(
            {
                "name": name,
                "method": image.method.value,
                "calibration_images": image.calibration_images,
                "bytes": size,
                "agreement": agreement_document(image.agreement),
                "fingerprint": made.fingerprint,
                "replaced_fingerprint": made.replaced,
            }
        )
    else:
        output.fields(
            [
                ("model", name),
                ("method", f"{image.method.value}; texts always dynamic"),
                ("calibrated on", f"{image.calibration_images} pictures"),
                ("size", byte_size(size)),
                *agreement_fields(image.agreement),
                ("fingerprint", made.fingerprint),
            ]
        )
        output.note(METHOD)
    if made.replaced is not None:
        output.note(
            f"It replaces {made.replaced}: an index that was made with that is refused from now "
            "on, and has to be made again under another prefix."
        )
    output.note("Use it by: export IMAGEDEX_EMBEDDING__PRECISION=int8")
