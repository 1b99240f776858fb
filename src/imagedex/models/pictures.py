"""Some of the user's own pictures, as the model sees them when it indexes."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imagedex.core.errors import InvalidRequest
from imagedex.core.images import ImageFailure
from imagedex.embedding import EmbeddingModel, ImageEncoder, PixelArray, VectorArray
from imagedex.ingest import (
    DecodeLimits,
    ImageDecoder,
    ImageRoots,
    ProcessImageDecoder,
    ScannedFile,
    scan,
)

# Enough for a runtime to be at its speed; more would only take memory.
_BATCH = 4

OnProgress = Callable[[int], None]


def pick_pictures(directory: Path, count: int) -> list[str]:
    """Return the paths of at most ``count`` image files below ``directory``, in random order.

    The same folder gives the same choice each time. Raises InvalidRequest when the directory
    cannot be listed or holds none.
    """
    top = os.path.abspath(directory)  # noqa: PTH100 - resolve() would follow links.
    found = [
        outcome.image_path
        for outcome in scan(ImageRoots([top]), top)
        if isinstance(outcome, ScannedFile)
    ]
    if not found:
        raise InvalidRequest(f"There are no image files below {str(directory)!r}; check --images.")
    # Sampled, not cut off: folders are sorted by time or by subject.
    return random.Random(0).sample(found, min(count, len(found)))  # noqa: S311


def open_decoder(
    model: EmbeddingModel, directory: Path, *, threads: int, limits: DecodeLimits
) -> closing[ProcessImageDecoder]:
    """Return a decoder for the pictures below ``directory``, the same as indexing uses."""
    return closing(
        ProcessImageDecoder(
            roots=ImageRoots([os.path.abspath(directory)]),  # noqa: PTH100 - as above.
            preprocess=model.preprocess,
            processes=threads,
            limits=limits,
            shape=model.input_shape,
        )
    )


def decode_pictures(
    decoder: ImageDecoder, paths: Sequence[str], on_progress: OnProgress
) -> Iterator[PixelArray]:
    """Yield the pixels of those that can be read; ``on_progress`` gets the number done."""
    for done, outcome in enumerate(decoder.decode(paths), start=1):
        if not isinstance(outcome, ImageFailure):
            yield outcome.pixels
        on_progress(done)


@dataclass(frozen=True, slots=True, eq=False)
class TwoVectors:
    """The vectors of some pictures by two encoders; shapes (n, dim), unit rows, in one order."""

    reference: VectorArray
    other: VectorArray


def encode_by_both(
    pictures: Iterator[PixelArray], reference: ImageEncoder, other: ImageEncoder
) -> TwoVectors | None:
    """Encode each picture twice; the pictures are held a few at a time. None without any."""
    references: list[VectorArray] = []
    others: list[VectorArray] = []
    for batch in _batches(pictures):
        pixels = np.stack(batch)
        references.append(reference.encode_images(pixels))
        others.append(other.encode_images(pixels))
    if not references:
        return None
    return TwoVectors(np.concatenate(references), np.concatenate(others))


def _batches(pictures: Iterator[PixelArray]) -> Iterator[list[PixelArray]]:
    batch: list[PixelArray] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
