"""``imagedex eval``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagedex.cli.invocation import JsonOption, invocation_of
from imagedex.cli.output import Output

if TYPE_CHECKING:
    from imagedex.search.captions import CaptionedImage
    from imagedex.search.evaluation import RecallReport
    from imagedex.settings import Settings

_FAILURES_SHOWN = 5


def evaluate(
    context: typer.Context,
    captions: Annotated[
        Path,
        typer.Argument(
            metavar="CAPTIONS.tsv", help="A table with the header path<TAB>caption, in UTF-8."
        ),
    ],
    images: Annotated[
        Path, typer.Option("--images", metavar="DIR", help="What the paths are relative to.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Measure how well captions find their images: R@1, R@5 and R@10.

    R@k is the share of captions whose best k images hold one with the same caption. Images
    and texts are embedded as for an index, with IMAGEDEX_MODEL, but nothing is stored.
    """
    from imagedex.cli.failures import CommandFailed
    from imagedex.cli.logs import configure_logging
    from imagedex.search.captions import read_captions

    invocation = invocation_of(context)
    settings = invocation.settings()
    configure_logging(
        "debug" if invocation.debug else "warning", pretty=True, tracebacks=invocation.debug
    )
    output = Output(as_json=as_json)
    entries = read_captions(captions)
    directory = Path(os.path.abspath(images))  # noqa: PTH100 - resolve() would follow links.
    if not directory.is_dir():
        raise CommandFailed(f"{str(images)!r} is not a directory; check --images.")
    report = _measure(settings, entries, directory, output)
    _write_report(output, report, settings.model)
    if report.images == 0:
        raise CommandFailed("No image could be read, so nothing was measured; check --images.")


def _measure(
    settings: Settings, entries: tuple[CaptionedImage, ...], directory: Path, output: Output
) -> RecallReport:
    from imagedex.app import choose_model, decode_limits
    from imagedex.ingest import ImageRoots, ProcessImageDecoder
    from imagedex.search.evaluation import measure_recall

    model = choose_model(settings)
    threads = _threads(settings)
    decoder = ProcessImageDecoder(
        roots=ImageRoots([directory]),
        preprocess=model.preprocess,
        processes=threads,
        limits=decode_limits(settings),
    )
    with closing(decoder), _progress(output, len(entries)) as on_progress:
        return measure_recall(
            entries,
            directory,
            decoder=decoder,
            image_encoder=model.load_image_encoder(threads=threads),
            text_encoder=model.load_text_encoder(threads=threads),
            batch_images=settings.indexing.batch_images,
            on_progress=on_progress,
        )


def _threads(settings: Settings) -> int:
    # Containers and taskset allow fewer cores than the machine has.
    return settings.indexing.threads_per_worker or len(os.sched_getaffinity(0))


@contextmanager
def _progress(output: Output, total: int) -> Iterator[Callable[[int], Any]]:
    from rich.progress import Progress

    if not output.errors.is_terminal:
        yield lambda _done: None
        return
    with Progress(console=output.errors) as progress:
        task = progress.add_task("Embedding", total=total)
        yield lambda done: progress.update(task, completed=done)


def _write_report(output: Output, report: RecallReport, model: str) -> None:
    document: dict[str, Any] = {f"R@{k}": share for k, share in report.recall.items()}
    document |= {
        "images": report.images,
        "captions": report.captions,
        "failed": len(report.failures),
        "model": model,
    }
    if output.as_json:
        output.document(document)
    else:
        output.fields(
            [
                (name, f"{value:.4f}" if isinstance(value, float) else str(value))
                for name, value in document.items()
            ]
        )
    for failure in report.failures[:_FAILURES_SHOWN]:
        output.note(f"failed ({failure.reason}): {failure.image_path}: {failure.detail}")
    if len(report.failures) > _FAILURES_SHOWN:
        output.note(f"… and {len(report.failures) - _FAILURES_SHOWN} more")
