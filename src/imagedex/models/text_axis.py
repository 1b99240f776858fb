"""Texts at their real length: a text graph without the length that was baked into it.

An exporter that traces one example writes its batch and its length into the graph, so that a
query of six words costs as much as one of 77 tokens, and texts cannot be encoded together. What
was baked in is taken out again where the graph allows it. Nothing is believed of such a graph:
it has to give the same vectors as the original before it takes its place.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imagedex.core.errors import ModelError
from imagedex.embedding.runtimes import describe_graph
from imagedex.models._axis_proof import PictureProof, TextProof, Unprovable
from imagedex.models._graph_release import NotReleased, release, vocabulary_size
from imagedex.models.disk import storage_errors

_PADDING_COUNTS = "the graph attends to the padding, as SigLIP does, so that it is part of the text"


@dataclass(frozen=True, slots=True)
class AxisOutcome:
    """What became of the axes of a graph."""

    is_dynamic: bool  # Texts of any length, or pictures in any number, may be fed.
    was_fixed_at: int | None  # The one length, or number, that it took; None if it took any.
    is_batch_dynamic: bool  # Several rows may be fed together.
    is_rewritten: bool  # There is an output file, to be used in place of the graph.
    reason: str  # In plain words, for the operator.


def free_text_axis(graph: Path, output: Path) -> AxisOutcome:
    """Free the length and the batch of a text graph, as far as it gives the same vectors.

    The graph stays as it was. ``output`` is written, flushed, by one rename, and only when it
    should take the graph's place; it lies in the same directory, as both use the same external
    data. The proof compares the original, fed with padded texts, to the output, fed with texts
    at their own length, alone and together: every cosine is at least 0.999999. The weights are
    in memory once. Raises ModelError when the graph cannot be read or run, and StorageError when
    the output cannot be written.
    """
    batch, length = _two_axes(graph)
    try:
        proof = TextProof(graph, vocabulary=vocabulary_size(graph))
    except Unprovable as reason:
        return AxisOutcome(False, length, batch is None, False, str(reason))
    if not proof.ignores_padding:
        is_freed = batch is not None and not _replace(
            graph, output, lambda new: proof.holds(new, batch=True, length=False), length=False
        )
        return AxisOutcome(False, length, batch is None or is_freed, is_freed, _PADDING_COUNTS)
    if batch is None and length is None:
        return AxisOutcome(True, None, True, False, "the graph takes texts of any length")

    fault = _replace(graph, output, lambda new: proof.holds(new, batch=True, length=True))
    if not fault:
        return AxisOutcome(True, length, True, True, "the length was freed, and proven to be")
    if batch is not None and not _replace(
        graph, output, lambda new: proof.holds(new, batch=False, length=True), batch=False
    ):
        reason_for_batch = f"the length was freed, and proven to be, but not the batch: {fault}"
        return AxisOutcome(True, length, False, True, reason_for_batch)
    return AxisOutcome(length is None, length, batch is None, False, fault)


def free_batch_axis(graph: Path, output: Path) -> AxisOutcome:
    """Free the batch of an image graph that an exporter fixed at one picture.

    All else is as in ``free_text_axis``.
    """
    batch, _ = _two_axes(graph)
    if batch is None:
        return AxisOutcome(True, None, True, False, "the graph takes any number of pictures")
    try:
        if batch != 1:
            raise Unprovable(f"it was made for exactly {batch} pictures at once")
        fault = _replace(graph, output, PictureProof(graph).holds, length=False)
    except Unprovable as reason:
        fault = str(reason)
    if fault:
        return AxisOutcome(False, batch, False, False, fault)
    return AxisOutcome(True, batch, True, True, "the batch was freed, and proven to be")


def _replace(
    graph: Path,
    output: Path,
    holds: Callable[[Path], bool],
    *,
    batch: bool = True,
    length: bool = True,
) -> str:
    """Write the graph with these axes freed to ``output``; return why not, or nothing."""
    candidate = output.with_name(f"{output.name}.tmp")
    try:
        with storage_errors("write", candidate):
            release(graph, candidate, batch=batch, length=length)
        if not holds(candidate):
            return "it can be rewritten, but then it gives other vectors"
        with storage_errors("write", output):
            candidate.replace(output)
    except NotReleased as reason:
        return f"it cannot be rewritten: {reason}"
    except ModelError as error:
        return f"it can be rewritten, but then it does not run: {error}"
    finally:
        # The error that led here counts; what stays is written over by the next attempt.
        with suppress(OSError):
            candidate.unlink(missing_ok=True)
    return ""


def _two_axes(graph: Path) -> tuple[int | None, int | None]:
    """Return the fixed sizes of the first two axes of the first input, None where they are free.

    Raises ModelError for a file whose input has fewer axes.
    """
    info = describe_graph(graph)
    shape = info.inputs[0].shape if info.inputs else ()
    if len(shape) < 2:
        raise ModelError(
            f"The graph {graph} takes neither texts nor pictures: its first input has the shape "
            f"{shape}. Take the files of a CLIP or SigLIP model."
        )
    return shape[0], shape[1]
