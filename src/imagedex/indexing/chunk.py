"""What a worker does with a chunk: read, hash, decode and embed its images, and leave a part file.

The model and the decoder are resources of the worker process, so they outlive the job.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagedex.core.images import FailureReason, ImageFacts, ImageFailure
from imagedex.embedding import EmbeddingModel, ImageEncoder
from imagedex.engine import WorkerContext
from imagedex.ingest import (
    DecodedImage,
    DecodeLimits,
    ImageDecoder,
    ImageRoots,
    ProcessImageDecoder,
)
from imagedex.jobs import ChunkDone
from imagedex.segments import DirectoryIndexFiles, Part


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What all chunks of a controller have in common."""

    model: EmbeddingModel
    image_roots: ImageRoots
    limits: DecodeLimits
    batch_images: int  # That the model gets at once.


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """The payload that travels to a worker."""

    setup: WorkerSetup
    index_prefix: Path
    job_id: str
    number: int
    fence: int
    image_paths: tuple[str, ...]


def embed_chunk(context: WorkerContext, task: ChunkTask) -> ChunkDone:
    """Embed a chunk and return what became of each image.

    The part file is durable when this returns. Running it twice is harmless: what counts is
    the part file whose name the controller recorded.
    """
    started = time.monotonic()
    setup = task.setup
    encoder: ImageEncoder = context.resource(
        f"image encoder {setup.model.fingerprint}",
        lambda: setup.model.load_image_encoder(threads=context.threads),
    )
    decoder = context.resource(_decoder_key(setup), lambda: _make_decoder(context, setup))

    embedded: list[ImageFacts] = []
    vectors: list[NDArray[np.float32]] = []
    failures: list[ImageFailure] = []
    for batch in _decode_batches(decoder, task, failures):
        batch_vectors = encoder.encode_images(np.stack([image.pixels for image in batch]))
        for image, vector in zip(batch, batch_vectors, strict=True):
            if np.isfinite(vector).all():
                embedded.append(image.facts)
                vectors.append(vector)
            else:
                failures.append(_without_direction(image.facts))

    part = None
    if embedded:
        files = DirectoryIndexFiles(task.index_prefix)
        part = files.write_part(
            task.job_id, task.number, task.fence, Part(tuple(embedded), np.stack(vectors))
        )
    return ChunkDone(
        number=task.number,
        part=part,
        indexed=len(embedded),
        failures=tuple(failures),
        worker_id=context.worker_id,
        host=context.host,
        seconds=time.monotonic() - started,
    )


def _decoder_key(setup: WorkerSetup) -> str:
    # Equal for equal set-ups, which reach the worker as another object with each chunk.
    return f"decoder {setup.model.fingerprint} {setup.image_roots!r} {setup.limits!r}"


def _make_decoder(context: WorkerContext, setup: WorkerSetup) -> ImageDecoder:
    return ProcessImageDecoder(
        processes=context.threads,
        limits=setup.limits,
        preprocess=setup.model.preprocess,
        roots=setup.image_roots,
        shape=setup.model.input_shape,
    )


def _decode_batches(
    decoder: ImageDecoder, task: ChunkTask, failures: list[ImageFailure]
) -> Iterator[list[DecodedImage]]:
    batch: list[DecodedImage] = []
    for outcome in decoder.decode(task.image_paths):
        if isinstance(outcome, ImageFailure):
            failures.append(outcome)
            continue
        batch.append(outcome)
        if len(batch) == task.setup.batch_images:
            yield batch
            batch = []
    if batch:
        yield batch


def _without_direction(facts: ImageFacts) -> ImageFailure:
    detail = "The model gave no finite vector for this picture."
    return ImageFailure(facts.image_path, FailureReason.DAMAGED, detail, facts.stamp)
