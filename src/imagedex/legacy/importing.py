"""The job that adopts an old index: its vectors, and facts read from the images' files.

It writes parts and publishes them as an index job does, some ten thousand images at a time. A
chunk becomes known as done only in the transaction that records its generation: nothing of an old
index is ever left over for a job with another model to publish. A job that is run again goes on
after the last generation.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import structlog

from imagedex.catalog import Catalog
from imagedex.core.errors import EngineError, InvalidRequest
from imagedex.core.images import FailureReason, ImageFacts, ImageFailure
from imagedex.embedding import VectorSpace
from imagedex.indexing import Merger, Publisher
from imagedex.ingest import (
    DecodedImage,
    DecodeLimits,
    ImageDecoder,
    ImageRoots,
    ProcessImageDecoder,
)
from imagedex.jobs import (
    Chunk,
    ChunkAction,
    ChunkDone,
    ChunkState,
    Job,
    JobCancelled,
    JobRun,
    JobStore,
    JobYielded,
    PlannedChunk,
)
from imagedex.legacy.facts import FACTS_SHAPE, FactsAlone
from imagedex.legacy.records import ImportRequest
from imagedex.legacy.source import LegacySource, require_roots_present, stamps_of
from imagedex.legacy.unit import to_unit
from imagedex.segments import IndexFiles, Part

_log = structlog.get_logger(__name__)

_STOP_CHECK_SECONDS = 0.5
_WORKER = "import"


@dataclass(frozen=True, slots=True)
class ImportedSpace:
    """The vectors of an old index: a ``VectorSpace``."""

    name: str
    fingerprint: str
    dim: int


class ImportFlow:
    """The handler of import jobs."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        jobs: JobStore,
        files_of: Callable[..., IndexFiles],
        publisher: Publisher,
        publisher_of: Callable[[VectorSpace], Publisher],
        merger: Merger,
        image_roots: ImageRoots,
        limits: DecodeLimits,
        processes: int,
        chunk_images: int,
        commit_images: int,
    ) -> None:
        """Take what it works with.

        ``publisher`` is that of the other jobs, whose left-over work comes first;
        ``publisher_of`` makes one for the vectors of another model. ``commit_images`` bounds the
        memory: so many vectors are held, about three times, while they are published.
        """
        self._catalog = catalog
        self._jobs = jobs
        self._files_of = files_of
        self._publisher = publisher
        self._publisher_of = publisher_of
        self._merger = merger
        self._image_roots = image_roots
        self._limits = limits
        self._processes = processes
        self._chunk_images = chunk_images
        self._commit_images = commit_images

    def run(self, run: JobRun) -> None:
        """Run a job to its end, or until it should stop (see ``JobRun.checkpoint``)."""
        job = run.lease.job
        request = ImportRequest.from_json(job.request)
        self._publisher.reconcile(request.index_prefix)
        if not self._publisher.may_publish(run.lease, request.index_prefix):
            raise JobYielded("The index was published under a higher fence than this lease has.")
        self._publisher.publish_left_over(run.lease, request.index_prefix)
        if stamps_of(request.options) != request.sources:
            raise InvalidRequest(
                f"The files of the old index {str(request.options.prefix)!r} have changed since "
                "its import was asked for; ask again."
            )
        source = LegacySource.open(request.options, self._image_roots)
        require_roots_present(source.placed, self._image_roots)
        if not job.is_planned:
            self._plan(run, job, source)
        self._adopt_all(run, request, source)
        # All the vectors lie in segments now; the parts would keep as much space again.
        self._publisher.sweep(run.lease, request.index_prefix, is_done=True)

    def _plan(self, run: JobRun, job: Job, source: LegacySource) -> None:
        """Leave out what the index has already: it is not older than the old index."""
        paths = list(source.placed.row_of)
        wanted = self._not_indexed(job.index_id, paths)
        run.checkpoint()
        failures = source.placed.failures
        chunks = (
            PlannedChunk(ChunkAction.EMBED, tuple(wanted[start : start + self._chunk_images]))
            for start in range(0, len(wanted), self._chunk_images)
        )
        self._jobs.save_plan(
            run.lease,
            chunks,
            total_images=len(paths) + len(failures),
            settled_images=len(paths) - len(wanted) + len(failures),
            failures=failures,
        )
        _log.info("import_planned", job_id=job.job_id, rows=source.pair.rows, images=len(wanted))

    def _adopt_all(self, run: JobRun, request: ImportRequest, source: LegacySource) -> None:
        publisher = self._publisher_of(
            ImportedSpace(request.options.model, request.fingerprint, request.dim)
        )
        done: list[ChunkDone] = []

        def publish() -> None:
            publisher.publish_done(run.lease, request.index_prefix, done)
            done.clear()

        decoder = ProcessImageDecoder(
            roots=self._image_roots,
            preprocess=FactsAlone(),
            processes=self._processes,
            limits=self._limits,
            shape=FACTS_SHAPE,
            look_ahead=8 * self._processes,
        )
        with closing(decoder):
            try:
                for chunk in self._jobs.chunks(run.lease.job.job_id, ChunkState.PLANNED):
                    done.append(self._adopt(run, request, source, chunk, decoder))
                    if sum(one.indexed for one in done) >= self._commit_images:
                        publish()
            except (JobCancelled, JobYielded, EngineError):
                publish()  # What was read before it is good.
                raise
        publish()
        self._merger.merge_if_due(run.lease, request.index_prefix, publisher=publisher)

    def _adopt(
        self,
        run: JobRun,
        request: ImportRequest,
        source: LegacySource,
        chunk: Chunk,
        decoder: ImageDecoder,
    ) -> ChunkDone:
        """Read a chunk's files, write its part, and return what became of each image."""
        wanted = self._not_indexed(run.lease.job.index_id, chunk.image_paths)
        row_of = source.placed.row_of
        failures = _unplaced(source, wanted)
        facts: list[ImageFacts] = []
        readable = [path for path in wanted if path in row_of]
        for outcome in _watched(run, decoder.decode(readable)):
            if isinstance(outcome, ImageFailure):
                failures.append(outcome)
            elif source.is_of_file(outcome.image_path, outcome.stamp):
                facts.append(outcome)
            else:
                failures.append(_changed(outcome.image_path))
        facts.sort(key=lambda one: row_of[one.image_path])
        rows = np.array([row_of[one.image_path] for one in facts], dtype=np.int64)
        found = to_unit(source.pair.take(rows))
        failures += [
            _without_direction(one.image_path)
            for one, is_usable in zip(facts, found.is_usable, strict=True)
            if not is_usable
        ]
        good = tuple(one for one, is_good in zip(facts, found.is_usable, strict=True) if is_good)
        part = None
        if good:
            part = self._files_of(request.index_prefix).write_part(
                run.lease.job.job_id,
                chunk.number,
                run.lease.fence,
                Part(good, found.vectors[found.is_usable], request.fingerprint),
            )
        return ChunkDone(
            number=chunk.number,
            part=part,
            indexed=len(good),
            failures=tuple(failures),
            worker_id=_WORKER,
            host=socket.gethostname(),
            seconds=0.0,  # Nothing was embedded, so this says nothing of how fast that is.
        )

    def _not_indexed(self, index_id: int, paths: Sequence[str]) -> list[str]:
        """Return the paths without a vector in the index, in their order."""
        known = self._catalog.lookup(index_id, paths)
        return [path for path in paths if path not in known or known[path].location is None]


def _watched(
    run: JobRun, outcomes: Iterator[DecodedImage | ImageFailure]
) -> Iterator[ImageFacts | ImageFailure]:
    """Pass outcomes on without their pixels, and stop among them when the run should."""
    looked_at = time.monotonic()
    for outcome in outcomes:
        if time.monotonic() - looked_at >= _STOP_CHECK_SECONDS:
            run.checkpoint()
            looked_at = time.monotonic()
        yield outcome if isinstance(outcome, ImageFailure) else outcome.facts


def _unplaced(source: LegacySource, paths: Sequence[str]) -> list[ImageFailure]:
    """Return why paths that are tried again have no row."""
    known = {failure.image_path: failure for failure in source.placed.failures}
    missing = [path for path in paths if path not in source.placed.row_of]
    detail = "The old index has no row for this path."
    return [
        known.get(path) or ImageFailure(path, FailureReason.BAD_ROW, detail) for path in missing
    ]


def _changed(image_path: str) -> ImageFailure:
    detail = (
        "The file has another size or mtime than the state file of the old index tells, so its "
        "vector is that of another picture; index it."
    )
    return ImageFailure(image_path, FailureReason.CHANGED, detail)


def _without_direction(image_path: str) -> ImageFailure:
    detail = "Its vector in the old index is zero or not finite; index the image."
    return ImageFailure(image_path, FailureReason.BAD_ROW, detail)
