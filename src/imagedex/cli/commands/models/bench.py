"""``imagedex models bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagedex.cli.commands.models.own_files import files_directory, threads_of
from imagedex.cli.failures import CommandFailed
from imagedex.cli.invocation import JsonOption, invocation_of
from imagedex.cli.output import Output

if TYPE_CHECKING:
    from imagedex.embedding.runtimes import Precision, Runtime
    from imagedex.models.speed import FormSpeed


def bench(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="An installed model, or the path of a directory with its files."
        ),
    ],
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", metavar="S", help="How long each batch size runs, about.", min=0.0
        ),
    ] = 3.0,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on this machine, in each runtime and precision that it has here.

    Prints images a second by batch size, the time of a short query, and the settings of the
    fastest form. Measure on an idle machine.
    """
    from imagedex.embedding.clip import ClipModel
    from imagedex.models.speed import fastest, measure_forms

    output = Output(as_json=as_json)
    settings = invocation_of(context).settings()
    directory = files_directory(name, settings)

    def open_model(precision: Precision, runtime: Runtime) -> ClipModel:
        return ClipModel.open(directory, name=name, precision=precision, runtime=runtime)

    # In float32 any model can be opened; what is wrong with its files is an error, not a row.
    ClipModel.open(directory, name=name)
    threads = threads_of(settings)
    forms = list(measure_forms(open_model, threads=threads, seconds=seconds, on_note=output.note))
    best = fastest(forms)
    if output.as_json:
        output.document(
            {
                "name": name,
                "threads": threads,
                "forms": [_document(form) for form in forms],
                "settings": None if best is None else _settings(best),
            }
        )
    else:
        _write(output, forms, best)
    if best is None:
        raise CommandFailed(f"{name} runs in no way on this machine; the reasons stand above.")


def _write(output: Output, forms: list[FormSpeed], best: FormSpeed | None) -> None:
    rows = [
        (
            form.runtime.value,
            form.precision.value,
            str(speed.batch),
            f"{speed.images_per_second:.2f}",
            f"{speed.cpu_seconds_per_image:.3f}",
            "" if form.text is None else f"{form.text.milliseconds:.1f}",
        )
        for form in forms
        for speed in form.batches
    ]
    output.table(("runtime", "precision", "batch", "images/s", "CPU s/image", "query ms"), rows)
    for form in forms:
        if form.reason is not None:
            output.note(f"{form.runtime} in {form.precision}: {form.reason}")
    if best is not None:
        output.note("Fastest on this machine (precision changes the fingerprint of an index):")
        for variable, value in _settings(best).items():
            output.line(f"{variable}={value}")


def _document(form: FormSpeed) -> dict[str, Any]:
    text = form.text
    return {
        "runtime": form.runtime.value,
        "precision": form.precision.value,
        "images": [
            {
                "batch": speed.batch,
                "images_per_second": speed.images_per_second,
                "cpu_seconds_per_image": speed.cpu_seconds_per_image,
            }
            for speed in form.batches
        ],
        "query": None
        if text is None
        else {"milliseconds": text.milliseconds, "cpu_milliseconds": text.cpu_milliseconds},
        "reason": form.reason,
    }


def _settings(best: FormSpeed) -> dict[str, str]:
    batch = best.best
    return {
        "IMAGEDEX_EMBEDDING__PRECISION": best.precision.value,
        "IMAGEDEX_EMBEDDING__RUNTIME": best.runtime.value,
        # Workers find the size themselves, up to this one.
        "IMAGEDEX_INDEXING__BATCH_IMAGES": str(1 if batch is None else batch.batch),
    }
