"""What a worker does with a chunk: read, hash, decode and embed its images, and leave a part file.

The model and the decoder are resources of the worker process, so they outlive the job. A worker
has two chunks at once: while one has the model, the first images of the other are decoded, so that
the cores need not wait between them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagedex.core.images import ImageFacts, ImageFailure
from imagedex.embedding import EmbeddingModel, ImageEncoder, VectorArray
from imagedex.engine import WorkerContext
from imagedex.indexing.batch_size import BatchSizer
from imagedex.indexing.hosting import (
    local_model,
    local_prefix,
    require_present_roots,
    writing_here,
)
from imagedex.indexing.known_vectors import KnownVectors, RecentVectors, take_vectors
from imagedex.indexing.outcomes import outcome_of
from imagedex.ingest import (
    DecodedImage,
    DecodeLimits,
    ImageRoots,
    KnownImage,
    ProcessImageDecoder,
    SparingDecoder,
)
from imagedex.jobs import ChunkDone
from imagedex.segments import DirectoryIndexFiles, Part, place_of

_RECENT_VECTORS = 4096  # A dozen megabytes.
_TURN_CHECK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What all chunks of a controller have in common."""

    model: EmbeddingModel
    image_roots: ImageRoots
    limits: DecodeLimits
    batch_images: int  # That the model gets at once at most.
    has_remote_workers: bool = False  # So that they must be sure to see what the controller sees.

    def place_of(self, index_prefix: Path) -> str | None:
        """Return what a remote worker holds its storage against. Raises StorageError."""
        return place_of(index_prefix) if self.has_remote_workers else None


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """The payload that travels to a worker."""

    setup: WorkerSetup
    index_prefix: Path
    job_id: str
    number: int
    fence: int
    image_paths: tuple[str, ...]
    # What some of them may turn out to be. None: compute every vector, whatever is known.
    known: KnownVectors | None = None
    # Which directory the index's is; None when all workers are beside the controller.
    place: str | None = None


@dataclass(frozen=True, slots=True)
class _LoadedModel:
    """The image half in this process, which one chunk at a time may use."""

    encoder: ImageEncoder
    sizer: BatchSizer
    recent: RecentVectors = field(default_factory=lambda: RecentVectors(_RECENT_VECTORS))
    turn: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class _Harvest:
    """What became of a chunk's images so far."""

    facts: list[ImageFacts] = field(default_factory=list)
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)  # By content hash.
    known: list[KnownImage] = field(default_factory=list)
    failures: list[ImageFailure] = field(default_factory=list)
    computed: int = 0

    @property
    def settled(self) -> int:
        """How many images are done: those with a vector, those known before, those that failed."""
        return len(self.vectors) + len(self.known) + len(self.failures)


def embed_chunk(context: WorkerContext, task: ChunkTask) -> ChunkDone:
    """Embed a chunk and return what became of each image.

    The part file is durable when this returns. Running it twice is harmless: what counts is
    the part file whose name the controller recorded. Safe to call from several threads of a
    worker: decoding begins at once, and the model is used by one after the other. Raises
    ChunkStopped, with nothing written, after the batch in which it was told to stop, and
    UnfitWorker on a remote host that lacks the storage, an image root or the model.
    """
    started = time.monotonic()
    decoder = context.resource(_decoder_key(task.setup), lambda: _make_decoder(context, task.setup))
    files = DirectoryIndexFiles(local_prefix(context, task.index_prefix, task.place))
    known = task.known or {}
    hashes = {path: [vector.content_hash for vector in known[path]] for path in known}
    harvest = _Harvest()
    waited = _embed(context, task, decoder.decode_unknown(task.image_paths, hashes), harvest)
    taken = take_vectors(files, harvest.known, known, fingerprint=task.setup.model.fingerprint)
    missed = [i.image_path for i in harvest.known if i.image_path not in taken]
    if missed:
        waited += _embed(context, task, decoder.decode(missed), harvest)

    rows = [(facts, harvest.vectors[facts.content_hash]) for facts in harvest.facts]
    failures = harvest.failures
    require_present_roots(context, failures, task.setup.image_roots)
    failures += [ImageFailure.without_direction(f) for f, v in rows if not np.isfinite(v).all()]
    rows = [(facts, vector) for facts, vector in rows if np.isfinite(vector).all()]
    rows += taken.values()
    done = ChunkDone(
        number=task.number,
        part=None,
        indexed=len(rows),
        failures=tuple(failures),
        worker_id=context.worker_id,
        host=context.host,
        # The wait for its turn is time in which the worker embeds other images.
        seconds=time.monotonic() - started - waited,
        reused=len(taken) + len(harvest.facts) - harvest.computed,
    )
    if not rows:
        return done
    embedded = Part(
        tuple(facts for facts, _ in rows),
        np.stack([v for _, v in rows]),
        task.setup.model.fingerprint,
    )
    outcome = outcome_of(done, task.image_paths)
    with writing_here(context):
        part = files.write_part(task.job_id, task.number, task.fence, embedded, outcome)
    return replace(done, part=part, seconds=time.monotonic() - started - waited)


def _embed(
    context: WorkerContext,
    task: ChunkTask,
    outcomes: Iterator[DecodedImage | KnownImage | ImageFailure],
    harvest: _Harvest,
) -> float:
    """Embed what is decoded, and sort out the rest; return how long the model was waited for.

    To load it is to wait for it: that happens once, and says nothing of how fast the worker is.
    """
    pictures = _sort_out(context, outcomes, harvest)
    first = next(pictures, None)
    if first is None:
        return 0.0  # Nothing needs the model, so it need not be loaded either.
    started = time.monotonic()
    model = context.resource(_model_key(task.setup), lambda: _load_model(context, task.setup))
    with _turn(context, model, harvest):
        waited = time.monotonic() - started
        may_recall = task.known is not None
        new = _without_copies(chain([first], pictures), model, harvest, may_recall=may_recall)
        for batch in _batches(new, model.sizer):
            context.progress(harvest.settled, [image.facts.image_path for image in batch])
            for image, vector in zip(batch, _encode(model, batch), strict=True):
                harvest.computed += 1
                harvest.vectors[image.facts.content_hash] = vector
                model.recent.remember(image.facts.content_hash, vector)
    return waited


@contextmanager
def _turn(context: WorkerContext, model: _LoadedModel, harvest: _Harvest) -> Iterator[None]:
    """Have the model; a chunk that waits for it can be stopped, and does not hang."""
    while not model.turn.acquire(timeout=_TURN_CHECK_SECONDS):
        context.progress(harvest.settled)
    try:
        yield
    finally:
        model.turn.release()


def _sort_out(
    context: WorkerContext,
    outcomes: Iterator[DecodedImage | KnownImage | ImageFailure],
    harvest: _Harvest,
) -> Iterator[DecodedImage]:
    for outcome in outcomes:
        context.progress(harvest.settled)
        if isinstance(outcome, ImageFailure):
            harvest.failures.append(outcome)
        elif isinstance(outcome, KnownImage):
            harvest.known.append(outcome)
        else:
            yield outcome


def _without_copies(
    pictures: Iterator[DecodedImage], model: _LoadedModel, harvest: _Harvest, *, may_recall: bool
) -> Iterator[DecodedImage]:
    """Yield one picture of each content that has no vector yet; note the facts of all."""
    begun = set(harvest.vectors)
    for image in pictures:
        harvest.facts.append(image.facts)
        content_hash = image.facts.content_hash
        if content_hash in begun:
            continue
        begun.add(content_hash)
        recalled = model.recent.get(content_hash) if may_recall else None
        if recalled is None:
            yield image
        else:
            harvest.vectors[content_hash] = recalled


def _model_key(setup: WorkerSetup) -> str:
    return f"image encoder {setup.model.fingerprint}, batches up to {setup.batch_images}"


def _load_model(context: WorkerContext, setup: WorkerSetup) -> _LoadedModel:
    model = local_model(context, setup.model, setup.model.fingerprint)
    encoder = model.load_image_encoder(threads=context.threads)
    return _LoadedModel(encoder, BatchSizer(setup.batch_images))


def _decoder_key(setup: WorkerSetup) -> str:
    # Equal for equal set-ups, which reach the worker as another object with each chunk.
    return f"decoder {setup.model.fingerprint} {setup.image_roots!r} {setup.limits!r}"


def _make_decoder(context: WorkerContext, setup: WorkerSetup) -> SparingDecoder:
    return ProcessImageDecoder(
        processes=context.threads,
        limits=setup.limits,
        preprocess=setup.model.preprocess,
        roots=setup.image_roots.placed(context.paths),
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


def _batches(pictures: Iterator[DecodedImage], sizer: BatchSizer) -> Iterator[list[DecodedImage]]:
    batch: list[DecodedImage] = []
    size = sizer.next_size()
    for picture in pictures:
        batch.append(picture)
        if len(batch) == size:
            yield batch
            batch = []
            size = sizer.next_size()
    if batch:
        yield batch
