"""``imagedex search``."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from imagedex.cli.failures import CommandFailed
from imagedex.cli.invocation import IndexPrefixOption, JsonOption, invocation_of
from imagedex.cli.output import Output
from imagedex.core.ids import is_image_id

if TYPE_CHECKING:
    from imagedex.client import ImagedexClient, QueryAnswer

# Vectors of texts are much alike: subtracted whole, one takes most of the other away.
_UNLIKE_WEIGHT = -0.5
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


def search(
    context: typer.Context,
    text: Annotated[
        str | None, typer.Argument(help="What the images show, in a few words.")
    ] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", min=1, max=1000, help="How many images to return.")
    ] = 10,
    like: Annotated[
        str | None,
        typer.Option(
            help="Images like this one: the id of an indexed image, or a picture's file.",
            metavar="ID_OR_FILE",
        ),
    ] = None,
    unlike: Annotated[
        list[str] | None,
        typer.Option("--not", help="What the images should not show.", metavar="TEXT"),
    ] = None,
    path: Annotated[
        Path | None, typer.Option(help="Only images below this directory.", metavar="DIR")
    ] = None,
    glob: Annotated[
        list[str] | None,
        typer.Option(help="Only images of such a name, or such a path if it has a '/'."),
    ] = None,
    after: Annotated[
        datetime | None, typer.Option(formats=_TIMES, help="Only files modified from then on.")
    ] = None,
    before: Annotated[
        datetime | None, typer.Option(formats=_TIMES, help="Only files modified before then.")
    ] = None,
    min_bytes: Annotated[int | None, typer.Option(min=0, help="Only files so large.")] = None,
    max_bytes: Annotated[int | None, typer.Option(min=0, help="Only files not larger.")] = None,
    min_width: Annotated[int | None, typer.Option(min=0, help="In pixels.")] = None,
    max_width: Annotated[int | None, typer.Option(min=0, help="In pixels.")] = None,
    min_height: Annotated[int | None, typer.Option(min=0, help="In pixels.")] = None,
    max_height: Annotated[int | None, typer.Option(min=0, help="In pixels.")] = None,
    min_score: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Only images with this score or more.")
    ] = None,
    distinct: Annotated[
        bool, typer.Option("--distinct", help="Show near-duplicates once, by the best of them.")
    ] = False,
    cursor: Annotated[
        str | None,
        typer.Option(help="The next page: next_cursor of the same search before, as JSON has it."),
    ] = None,
    index_prefix: IndexPrefixOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find images by describing them, or by an image they should be like, best first."""
    from imagedex.cli.connection import connect

    if text is None and like is None and not unlike:
        raise typer.BadParameter("There is nothing to look for: give a text, or --like.")
    output = Output(as_json=as_json)
    tests = {
        "path_prefix": absolute_text(path),
        "path_globs": glob or None,
        "modified_after": _iso(after),
        "modified_before": _iso(before),
        "min_bytes": min_bytes,
        "max_bytes": max_bytes,
        "min_width": min_width,
        "max_width": max_width,
        "min_height": min_height,
        "max_height": max_height,
    }
    options: dict[str, Any] = {
        "top_k": top_k,
        "filter": {name: value for name, value in tests.items() if value is not None} or None,
        "min_score": min_score,
        "collapse_duplicates": distinct,
        "cursor": cursor,
        "index_prefix": absolute_text(index_prefix),
    }
    picture = _picture(like, has_words=bool(text or unlike))
    with connect(invocation_of(context)) as client:
        if picture is not None:
            answer = client.query_picture(picture, **options)
        else:
            answer = _ask(client, text, like, unlike or [], options)
    _show(output, answer, distinct=distinct)


def _ask(
    client: ImagedexClient,
    text: str | None,
    image_id: str | None,
    unlike: list[str],
    options: dict[str, Any],
) -> QueryAnswer:
    if unlike or (text is not None and image_id is not None):
        wanted: list[dict[str, Any]] = [{"text": text}] if text is not None else []
        wanted += [{"image_id": image_id}] if image_id is not None else []
        terms = [*wanted, *({"text": words, "weight": _UNLIKE_WEIGHT} for words in unlike)]
        return client.query(terms=terms, **options)
    return client.query(text, image_id=image_id, **options)


def _picture(like: str | None, *, has_words: bool) -> bytes | None:
    """Return the bytes of the file that ``--like`` names, None when it names none."""
    if like is None or (is_image_id(like) and not Path(like).exists()):
        return None
    if has_words:
        raise CommandFailed(
            "A picture's file cannot be looked for together with words; index it, and give its id."
        )
    try:
        return Path(like).read_bytes()
    except OSError as error:
        raise CommandFailed(
            f"--like {like!r} is neither the id of an image (20 hexadecimal digits) nor a file "
            f"that can be read: {error.strerror}."
        ) from error


def _show(output: Output, answer: QueryAnswer, *, distinct: bool) -> None:
    if output.as_json:
        output.document(answer)
        return
    if answer.index_stats.total_images == 0:
        output.note("Nothing is indexed yet; index a directory with: imagedex index DIR")
    elif not answer.results:
        output.note("No image matches.")
    if answer.query_cut:
        output.note("The text is longer than the model reads; its end did not count.")
    header = ("rank", "score", *(("images",) if distinct else ()), "path")
    rows = [
        (
            str(result.rank),
            f"{result.score:.4f}",
            *((str(result.stands_for),) if distinct else ()),
            result.image_path,
        )
        for result in answer.results
    ]
    output.table(header, rows)


def _iso(moment: datetime | None) -> str | None:
    """Return a local time as ISO 8601 with its zone."""
    return None if moment is None else moment.astimezone().isoformat()


def absolute_text(path: Path | None) -> str | None:
    """Return a path as the server names it: from the root on, links left as they are."""
    return None if path is None else os.path.abspath(path)  # noqa: PTH100 - resolve() follows links.
