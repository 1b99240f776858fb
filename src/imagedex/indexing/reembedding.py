"""Embedding all images of an index with another model, as far as workers have come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from imagedex.core.images import FailureReason, ImageFailure
from imagedex.engine import Engine
from imagedex.indexing.chunk import ChunkTask, WorkerSetup
from imagedex.indexing.dispatch import embed_all
from imagedex.indexing.outcomes import adopt
from imagedex.indexing.pace import Pace
from imagedex.indexing.supply import PlannedSupply
from imagedex.jobs import (
    Chunk,
    ChunkAction,
    ChunkDone,
    ChunkState,
    JobRun,
    JobStore,
    PlannedChunk,
)
from imagedex.segments import IndexFiles

if TYPE_CHECKING:
    from imagedex.database import Database

_ATTEMPTS = 3  # At an image that could not be read, by as many runs of a job.

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """Where the new vector of an image lies, and of which content it is."""

    content_hash: str
    part: str
    row: int


class Reembedding:
    """One run of a job that embeds an index anew. For the thread that runs the job.

    Images are given as a mapping from path to the content hash that the index has of each. An image
    is done when that content is embedded, or when it was read after the index had that content:
    whatever it was then is newer, and a file that changes all the time must come to an end.
    """

    def __init__(
        self,
        run: JobRun,
        *,
        database: Database,
        jobs: JobStore,
        engine: Engine,
        files: IndexFiles,
        setup: WorkerSetup,
        chunk_images: int,
        pace: Pace,
    ) -> None:
        """Take what it works with; the model of ``setup`` is the new one."""
        self._run = run
        self._job_id = run.lease.job.job_id
        self._database = database
        self._jobs = jobs
        self._engine = engine
        self._files = files
        self._setup = setup
        self._chunk_images = chunk_images
        self._pace = pace
        self._embedded: dict[str, EmbeddedImage] = {}
        self._failures: dict[str, ImageFailure] = {}
        self._tried: dict[str, str] = {}

    def begin(self, images: Mapping[str, str]) -> None:
        """Plan to embed these images, or take up what earlier runs of the job have done."""
        if self._run.lease.job.is_planned:
            self._resume()
            return
        self._jobs.save_plan(
            self._run.lease,
            self._chunks(sorted(images)),
            total_images=len(images),
            settled_images=0,
            failures=(),
        )
        self._tried.update(images)

    def missing(self, images: Mapping[str, str]) -> list[str]:
        """Return those that are not done, by path."""
        return sorted(
            path
            for path, content_hash in images.items()
            if self._tried.get(path) != content_hash and not self._has(path, content_hash)
        )

    def catch_up(self, images: Mapping[str, str]) -> None:
        """Embed what is planned and not done, and then what of these images is missing."""
        self._embed_planned()
        if missing := self.missing(images):
            self._jobs.extend_plan(self._run.lease, self._chunks(missing))
            self._tried.update((path, images[path]) for path in missing)
            self._embed_planned()

    def embedded(self, images: Mapping[str, str]) -> dict[str, EmbeddedImage]:
        """Return where the new vectors of images are; those that could not be read have none."""
        return {path: self._embedded[path] for path in images if path in self._embedded}

    def unreadable(self, images: Mapping[str, str]) -> list[str]:
        """Return those that are done and have no new vector, by path."""
        return sorted(
            path
            for path, content_hash in images.items()
            if path not in self._embedded and self._tried.get(path) == content_hash
        )

    def failures(self, images: Mapping[str, str]) -> list[ImageFailure]:
        """Return why images could not be read."""
        return [
            self._failures[path]
            for path in images
            if path in self._failures and path not in self._embedded
        ]

    def _has(self, image_path: str, content_hash: str) -> bool:
        embedded = self._embedded.get(image_path)
        return embedded is not None and embedded.content_hash == content_hash

    def _resume(self) -> None:
        lost = []
        for chunk in self._jobs.chunks(self._job_id, ChunkState.EMBEDDED):
            self._run.checkpoint()
            if chunk.part is None:
                continue
            if self._files.part_fingerprint(chunk.part) == self._setup.model.fingerprint:
                self._note_part(chunk.part)
            else:
                lost.append(chunk.number)
        if lost:
            _log.warning("part_files_lost", job_id=self._job_id, chunks=lost)
            self._jobs.replan_chunks(self._run.lease, lost)
        self._jobs.retry_failures(self._run.lease, tuple(FailureReason), below_attempts=_ATTEMPTS)

    def _note_part(self, part: str) -> None:
        for row, facts in enumerate(self._files.read_part_facts(part)):
            self._embedded[facts.image_path] = EmbeddedImage(facts.content_hash, part, row)

    def _chunks(self, image_paths: Sequence[str]) -> Iterator[PlannedChunk]:
        for start in range(0, len(image_paths), self._chunk_images):
            some = image_paths[start : start + self._chunk_images]
            yield PlannedChunk(ChunkAction.EMBED, tuple(some))

    def _embed_planned(self) -> None:
        planned = self._jobs.chunks(self._job_id, ChunkState.PLANNED)
        if not planned:
            return
        fingerprint = self._setup.model.fingerprint
        adopted = adopt(
            self._files,
            self._job_id,
            planned,
            fingerprint=fingerprint,
            image_roots=self._setup.image_roots,
            may_have_changed=True,  # Its images are held against their contents at the end.
        )
        for done in adopted:
            self._note(done)
        numbers = {done.number for done in adopted}
        supply = PlannedSupply(
            (chunk for chunk in planned if chunk.number not in numbers),
            pace=self._pace,
            split=lambda number, sizes: self._jobs.split_chunk(self._run.lease, number, sizes),
            fingerprint=lambda: fingerprint,
            task_of=self._task_of,
        )
        embed_all(
            self._engine,
            supply,
            on_done=self._note,
            on_tick=self._run.checkpoint,
            is_cancelled=self._run.is_cancelled,
        )
        self._pace.store(at_once=True)

    def _task_of(self, chunk: Chunk) -> ChunkTask:
        return ChunkTask(
            setup=self._setup,
            index_prefix=self._files.index_prefix,
            job_id=self._job_id,
            number=chunk.number,
            fence=self._run.lease.fence,
            image_paths=chunk.image_paths,
            known={},  # Copies that a worker meets one after the other are computed once.
            place=self._setup.place_of(self._files.index_prefix),
        )

    def _note(self, done: ChunkDone) -> None:
        with self._database.transaction() as transaction:
            self._jobs.checkpoint_embedded(transaction, self._run.lease, done)
        for failure in done.failures:
            # An older version that was embedded must not stand for the one that cannot be read.
            self._embedded.pop(failure.image_path, None)
        if done.part is not None:
            self._note_part(done.part)
        self._failures.update((failure.image_path, failure) for failure in done.failures)
