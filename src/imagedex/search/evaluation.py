"""How well a model finds images by their captions.

Recall at k (R@k) of caption -> image retrieval, as in Karpathy and Fei-Fei 2015,
https://arxiv.org/abs/1412.2306: the share of captions for which a right image is among the k
best. Several images may have one caption; each of them is right for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagedex.core.images import ImageFailure
from imagedex.embedding import ImageEncoder, TextEncoder, VectorArray
from imagedex.ingest import DecodedImage, ImageDecoder
from imagedex.search.captions import CaptionedImage

RECALL_RANKS = (1, 5, 10)

_TEXTS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class EmbeddedImages:
    """The images that could be embedded, in order of path, and those that could not."""

    entries: tuple[CaptionedImage, ...]
    vectors: VectorArray  # float32, shape (len(entries), dim), rows of unit length.
    failures: tuple[ImageFailure, ...]


@dataclass(frozen=True, slots=True)
class RecallReport:
    """What was measured."""

    recall: dict[int, float]  # For each k the share of captions, 0 to 1.
    images: int  # That could be embedded, and were searched.
    captions: int  # One for each image named, also for those that failed.
    failures: tuple[ImageFailure, ...]


def measure_recall(
    entries: Sequence[CaptionedImage],
    directory: Path,
    *,
    decoder: ImageDecoder,
    image_encoder: ImageEncoder,
    text_encoder: TextEncoder,
    batch_images: int,
    on_progress: Callable[[int], None] = lambda _done: None,
) -> RecallReport:
    """Embed the images below ``directory``, search them by every caption, and count.

    ``on_progress`` gets the number of images done. A caption whose image failed still counts,
    as not found unless another image has the same one: a failure must not improve the figure.
    """
    images = embed_images(
        entries,
        directory,
        decoder,
        image_encoder,
        batch_images=batch_images,
        on_progress=on_progress,
    )
    ranks = _best_ranks(entries, images, text_encoder)
    recall = {k: float(np.count_nonzero(ranks < k)) / len(entries) for k in RECALL_RANKS}
    return RecallReport(recall, len(images.entries), len(entries), images.failures)


def embed_images(
    entries: Sequence[CaptionedImage],
    directory: Path,
    decoder: ImageDecoder,
    encoder: ImageEncoder,
    *,
    batch_images: int,
    on_progress: Callable[[int], None],
) -> EmbeddedImages:
    """Read, decode and embed images just as indexing does."""
    by_path = {str(directory / entry.path): entry for entry in entries}
    embedded: list[CaptionedImage] = []
    vectors: list[NDArray[np.float32]] = []
    failures: list[ImageFailure] = []
    batch: list[DecodedImage] = []
    for done, outcome in enumerate(decoder.decode(sorted(by_path)), start=1):
        if isinstance(outcome, ImageFailure):
            failures.append(outcome)
        else:
            batch.append(outcome)
        if len(batch) == batch_images or (batch and done == len(by_path)):
            encoded = encoder.encode_images(np.stack([image.pixels for image in batch]))
            for image, vector in zip(batch, encoded, strict=True):
                if np.isfinite(vector).all():
                    embedded.append(by_path[image.facts.image_path])
                    vectors.append(vector)
                else:
                    failures.append(ImageFailure.without_direction(image.facts))
            batch.clear()
        on_progress(done)
    stacked = np.stack(vectors) if vectors else np.empty((0, 0), np.float32)
    return EmbeddedImages(tuple(embedded), stacked, tuple(failures))


def _best_ranks(
    entries: Sequence[CaptionedImage], images: EmbeddedImages, encoder: TextEncoder
) -> NDArray[np.int64]:
    """Return for each entry the rank, from 0, of the best image that has its caption.

    Without such an image the rank lies beyond all images.
    """
    texts = sorted({entry.caption for entry in entries})
    nowhere = max(len(images.entries), max(RECALL_RANKS))
    rank_of: dict[str, int] = dict.fromkeys(texts, nowhere)
    captions = np.array([entry.caption for entry in images.entries], dtype=object)
    for start in range(0, len(texts) if images.entries else 0, _TEXTS_AT_ONCE):
        some = texts[start : start + _TEXTS_AT_ONCE]
        scores = encoder.encode_texts(some).vectors @ images.vectors.T
        # The images stand in order of path, so a stable sort breaks ties by path.
        order = np.argsort(-scores, axis=1, kind="stable")
        for text, ranked in zip(some, order, strict=True):
            right = np.flatnonzero(captions[ranked] == text)
            if right.size:
                rank_of[text] = int(right[0])
    return np.array([rank_of[entry.caption] for entry in entries], dtype=np.int64)
