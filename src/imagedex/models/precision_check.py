"""Holding a precision of an installed model against float32, on the user's own pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagedex.core.errors import InvalidRequest
from imagedex.embedding import EmbeddingModel
from imagedex.ingest import DecodeLimits
from imagedex.models.agreement import Agreement, compare
from imagedex.models.pictures import (
    OnProgress,
    decode_pictures,
    encode_by_both,
    open_decoder,
    pick_pictures,
)


@dataclass(frozen=True, slots=True)
class PrecisionCheck:
    """What a precision does to some pictures."""

    agreement: Agreement
    failed: int  # Pictures that could not be read, and do not count.


def check_precision(
    reference: EmbeddingModel,
    model: EmbeddingModel,
    images: Path,
    *,
    count: int,
    threads: int,
    limits: DecodeLimits,
    on_progress: OnProgress = lambda _done: None,
) -> PrecisionCheck:
    """Compare a model with ``reference``, itself in float32, on at most ``count`` pictures.

    They are picked at random from below ``images``, the same ones each time, and read and
    decoded as they are for an index. Both forms are in memory at once. Raises InvalidRequest
    when there are none, and ModelError.
    """
    if count < 1:
        raise InvalidRequest(f"At least one picture is needed, not --count {count}.")
    paths = pick_pictures(images, count)
    with open_decoder(model, images, threads=threads, limits=limits) as decoder:
        vectors = encode_by_both(
            decode_pictures(decoder, paths, on_progress),
            reference.load_image_encoder(threads=threads),
            model.load_image_encoder(threads=threads),
        )
    if vectors is None:
        raise InvalidRequest(
            f"None of {len(paths)} image files below {str(images)!r} can be read; check --images."
        )
    agreement = compare(vectors.reference, vectors.other)
    return PrecisionCheck(agreement, failed=len(paths) - agreement.images)
