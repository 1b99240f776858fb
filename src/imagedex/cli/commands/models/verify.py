"""``imagedex models verify``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagedex.cli.commands.models.agreement import METHOD, agreement_document, agreement_fields
from imagedex.cli.commands.models.home import model_store
from imagedex.cli.commands.models.own_files import files_directory, threads_of
from imagedex.cli.failures import CommandFailed
from imagedex.cli.invocation import JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.cli.text import count_of

if TYPE_CHECKING:
    from imagedex.models import InstalledModel
    from imagedex.models.precision_check import PrecisionCheck
    from imagedex.settings import Settings


class ComparedPrecision(StrEnum):
    """What can be held against float32."""

    INT8 = "int8"
    BF16 = "bf16"


def verify(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="An installed model; with --images also the path of a directory with its files.",
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            metavar="DIR",
            help="Compare a precision with float32 on pictures of this folder.",
        ),
    ] = None,
    precision: Annotated[
        ComparedPrecision,
        typer.Option("--precision", help="The precision to compare, with --images."),
    ] = ComparedPrecision.INT8,
    count: Annotated[
        int,
        typer.Option("--count", metavar="N", help="Pictures to compare, at most.", min=1),
    ] = 300,
    as_json: JsonOption = False,
) -> None:
    """Check that a model's files are what they were when it was installed.

    With --images, also print how far its vectors in a precision agree with those in float32. The
    exit code is 1 when a file is missing or has changed.
    """
    output = Output(as_json=as_json)
    settings = invocation_of(context).settings()
    document: dict[str, Any] = {"name": name}
    store = model_store(settings)
    is_installed = store.find(name) is not None
    if is_installed or images is None:
        _verify_files(output, store.get(name), document)
    if images is not None:
        check = _check(settings, name, images, precision, count)
        _write_check(output, check, precision, document)
    if as_json:
        output.document(document)


def _verify_files(output: Output, model: InstalledModel, document: dict[str, Any]) -> None:
    from imagedex.models.verification import file_faults, int8_faults

    pulled = list(file_faults(model))
    # Only a model whose files are whole can tell where those of its int8 form lie.
    faults = pulled or list(int8_faults(model))
    document |= {
        "files": len(model.lock.files),
        "faults": [{"path": fault.path, "problem": fault.problem} for fault in faults],
    }
    if faults:
        if output.as_json:
            output.document(document)
        else:
            for fault in faults:
                output.line(f"{fault.path} {fault.problem}")
        remedy = f"imagedex models pull {model.name} --force"
        if not pulled:
            remedy = f"imagedex models quantize {model.name} --images DIR"
        elif not model.lock.sources:
            remedy += " --from-dir DIR"
        raise CommandFailed(
            f"{count_of(len(faults), 'file')} of {model.name} cannot be used; get it again by: "
            f"{remedy}"
        )
    if not output.as_json:
        output.line(f"{count_of(len(model.lock.files), 'file')} of {model.name} as installed.")


def _check(
    settings: Settings, name: str, images: Path, precision: ComparedPrecision, count: int
) -> PrecisionCheck:
    from imagedex.app import decode_limits
    from imagedex.embedding.clip import ClipModel
    from imagedex.embedding.runtimes import Precision
    from imagedex.models.precision_check import check_precision

    directory = files_directory(name, settings)

    def opened(precision: Precision) -> ClipModel:
        return ClipModel.open(
            directory,
            name=name,
            precision=precision,
            runtime=settings.embedding.runtime,
            reduced_decoding=settings.decoding.reduced,
        )

    return check_precision(
        opened(Precision.FP32),
        opened(Precision(precision.value)),
        images,
        count=count,
        threads=threads_of(settings),
        limits=decode_limits(settings),
    )


def _write_check(
    output: Output,
    check: PrecisionCheck,
    precision: ComparedPrecision,
    document: dict[str, Any],
) -> None:
    document |= {
        "precision": precision.value,
        "agreement": agreement_document(check.agreement),
        "failed": check.failed,
    }
    if output.as_json:
        return
    fields = [("precision", precision.value), *agreement_fields(check.agreement)]
    if check.failed:
        fields.append(("could not be read", str(check.failed)))
    output.fields(fields)
    output.note(METHOD)
