"""What a worker does with a chunk: read, hash, decode and embed its images, and leave a part file.

The model and the decoder are resources of the worker process, so they outlive the job. A worker
has two chunks at once: while one has the model, the first images of the other are decoded, so that
the cores need not wait between them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagedex.core.images import ImageFacts, ImageFailure
from imagedex.embedding import EmbeddingModel, ImageEncoder, VectorArray
from imagedex.engine import WorkerContext
from imagedex.indexing.batch_size import BatchSizer
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
    batch_images: int  # That the model gets at once at most.


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """The payload that travels to a worker."""

    setup: WorkerSetup
    index_prefix: Path
    job_id: str
    number: int
    fence: int
    image_paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _LoadedModel:
    """The image half in this process, which one chunk at a time may use."""

    encoder: ImageEncoder
    sizer: BatchSizer
    turn: threading.Lock = field(default_factory=threading.Lock)


def embed_chunk(context: WorkerContext, task: ChunkTask) -> ChunkDone:
    """Embed a chunk and return what became of each image.

    The part file is durable when this returns. Running it twice is harmless: what counts is
    the part file whose name the controller recorded. Safe to call from several threads of a
    worker: decoding begins at once, and the model is used by one after the other.
    """
    setup = task.setup
    decoder = context.resource(_decoder_key(setup), lambda: _make_decoder(context, setup))
    outcomes = decoder.decode(task.image_paths)
    model = context.resource(_model_key(setup), lambda: _load_model(context, setup))

    embedded: list[ImageFacts] = []
    vectors: list[NDArray[np.float32]] = []
    failures: list[ImageFailure] = []
    with model.turn:
        started = time.monotonic()
        for batch in _batches(outcomes, model.sizer, failures):
            for image, vector in zip(batch, _encode(model, batch), strict=True):
                if np.isfinite(vector).all():
                    embedded.append(image.facts)
                    vectors.append(vector)
                else:
                    failures.append(ImageFailure.without_direction(image.facts))
        seconds = time.monotonic() - started

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
        # Of its turn alone: the wait for it is time in which the worker embeds other images.
        seconds=seconds,
    )


def _model_key(setup: WorkerSetup) -> str:
    return f"image encoder {setup.model.fingerprint}, batches up to {setup.batch_images}"


def _load_model(context: WorkerContext, setup: WorkerSetup) -> _LoadedModel:
    encoder = setup.model.load_image_encoder(threads=context.threads)
    return _LoadedModel(encoder, BatchSizer(setup.batch_images))


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
        # The largest batch can wait in full while the model works on another.
        look_ahead=setup.batch_images + 2 * context.threads,
    )


def _encode(model: _LoadedModel, batch: list[DecodedImage]) -> VectorArray:
    pixels = np.stack([image.pixels for image in batch])
    started = time.perf_counter()
    vectors = model.encoder.encode_images(pixels)
    model.sizer.record(len(batch), time.perf_counter() - started)
    return vectors


def _batches(
    outcomes: Iterator[DecodedImage | ImageFailure],
    sizer: BatchSizer,
    failures: list[ImageFailure],
) -> Iterator[list[DecodedImage]]:
    batch: list[DecodedImage] = []
    size = sizer.next_size()
    for outcome in outcomes:
        if isinstance(outcome, ImageFailure):
            failures.append(outcome)
            continue
        batch.append(outcome)
        if len(batch) == size:
            yield batch
            batch = []
            size = sizer.next_size()
    if batch:
        yield batch
