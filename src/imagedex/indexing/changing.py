"""Giving an index another model: all its images are embedded anew while the old vectors serve.

What workers embed stays in part files, which only this job publishes: at its end, all at once.
Images that come or change meanwhile go into the index with the old model, and are embedded with
the new one before the end. The job can be ended between any two lines and goes on after its last
chunk; until the new generation is published the index is what it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from imagedex.catalog import Catalog
from imagedex.core.errors import Conflict, InvalidRequest, StorageError
from imagedex.core.images import RowLocation
from imagedex.embedding import EmbeddingModel
from imagedex.embedding.runtimes import Precision
from imagedex.engine import Engine
from imagedex.indexing.chunk import WorkerSetup
from imagedex.indexing.live_images import LiveImages
from imagedex.indexing.pace import Pace
from imagedex.indexing.publishing import Publisher
from imagedex.indexing.reembedding import EmbeddedImage, Reembedding
from imagedex.indexing.turns import IndexTurns
from imagedex.jobs import (
    ChunkState,
    JobCancelled,
    JobKind,
    JobRun,
    JobStore,
    JobYielded,
    Lane,
    NewJob,
    Priority,
)
from imagedex.segments import IndexFiles, Manifest, PartRows, PreparedReplacement, Replacement

if TYPE_CHECKING:
    from imagedex.database import Database

_EMBEDDED_WHILE_OTHERS_WAIT = 32  # Images.

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What a job of this kind is asked for."""

    index_prefix: Path
    model: str
    precision: Precision | None
    fingerprint: str  # That the model had when it was asked for.

    def to_json(self) -> dict[str, Any]:
        """Return it as a job stores it."""
        return {
            "index_prefix": str(self.index_prefix),
            "model": self.model,
            "precision": None if self.precision is None else self.precision.value,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelChange:
        """Return what was stored."""
        precision = document["precision"]
        return cls(
            Path(document["index_prefix"]),
            document["model"],
            None if precision is None else Precision(precision),
            document["fingerprint"],
        )


def new_model_change(
    index_id: int, change: ModelChange, *, images_count: int, priority: Priority
) -> NewJob:
    """Return the request; while one for the same vectors is active, all requests are that one."""
    return NewJob(
        index_id=index_id,
        kind=JobKind.CHANGE_MODEL,
        request=change.to_json(),
        priority=priority,
        dedupe_key=f"{JobKind.CHANGE_MODEL.value} {change.fingerprint}",
        images_count=images_count,
        runs_again=False,
    )


class ModelChanger:
    """The handler of jobs that change the model of an index."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        jobs: JobStore,
        engine: Engine,
        publisher: Publisher,
        turns: IndexTurns,
        setup: WorkerSetup,
        files_of: Callable[[Path], IndexFiles],
        find: Callable[[str, Precision | None], EmbeddingModel],
        warm: Callable[[EmbeddingModel], None],
        cool: Callable[[EmbeddingModel], None],
        on_published: Callable[[Path], object],
        chunk_images: int,
        max_share: float,
        pace: Pace,
    ) -> None:
        """Take what it works with; the model of ``setup`` is not used.

        ``warm`` makes queries ready for a model before its generation is published, ``cool`` lets
        go of what no query uses. With more than ``max_share`` of its images unreadable an index
        keeps its model.
        """
        self._database = database
        self._catalog = catalog
        self._jobs = jobs
        self._engine = engine
        self._publisher = publisher
        self._turns = turns
        self._setup = setup
        self._files_of = files_of
        self._find = find
        self._warm = warm
        self._cool = cool
        self._on_published = on_published
        self._chunk_images = chunk_images
        self._max_share = max_share
        self._pace = pace

    def run(self, run: JobRun) -> None:
        """Run a job to its end, or until it should stop (see ``JobRun.checkpoint``)."""
        change = ModelChange.from_json(run.lease.job.request)
        files = self._files_of(change.index_prefix)
        self._publisher.reconcile(change.index_prefix)
        if not self._publisher.may_publish(run.lease, change.index_prefix):
            raise JobYielded("The index was published under a higher fence than this lease has.")
        model = self._find(change.model, change.precision)
        if model.fingerprint != change.fingerprint:
            raise InvalidRequest(
                f"The files or settings of the model {change.model!r} have changed since it was "
                "asked for; ask again."
            )
        try:
            run.checkpoint()
            manifest = files.current()
            if manifest is not None and manifest.fingerprint != model.fingerprint:
                self._change(run, files, model)
        except JobCancelled:
            self._remove_parts(files, {run.lease.job.job_id})
            raise
        self._finish(run, files)

    def _change(self, run: JobRun, files: IndexFiles, model: EmbeddingModel) -> None:
        images = LiveImages(files)
        anew = Reembedding(
            run,
            database=self._database,
            jobs=self._jobs,
            engine=self._engine,
            files=files,
            setup=replace(self._setup, model=model),
            chunk_images=self._chunk_images,
            pace=self._pace,
        )
        try:
            # Before the work of hours: a model of which a half cannot be loaded is no good.
            self._warm(model)
            anew.begin(images.of(_current(files)))
            anew.catch_up(images.of(_current(files)))
            self._publish(run, files, model, images, anew)
        finally:
            self._cool(model)

    def _publish(
        self,
        run: JobRun,
        files: IndexFiles,
        model: EmbeddingModel,
        images: LiveImages,
        anew: Reembedding,
    ) -> None:
        """Build the new segments while others publish, and then publish them in their place."""
        replacement = Replacement(
            run.lease.fence, run.lease.job.job_id, model.name, model.fingerprint, model.dim
        )
        with files.prepare_replacement(replacement) as prepared:
            staged = _Staged(prepared)
            there = images.of(_current(files))
            self._require_readable(there, anew)
            staged.add(anew.embedded(there))
            run.require_going_on()
            while not self._try_publish(run, files, images, anew, staged):
                anew.catch_up(images.of(_current(files)))
        # Before the model is let go that was made ready for it.
        self._on_published(files.index_prefix)

    def _try_publish(
        self,
        run: JobRun,
        files: IndexFiles,
        images: LiveImages,
        anew: Reembedding,
        staged: _Staged,
    ) -> bool:
        """Publish, unless too much has come meanwhile to embed it while others wait."""
        turn = self._turns.of(files.index_prefix)
        index_id = run.lease.job.index_id
        with turn.held():
            self._publisher.reconcile(files.index_prefix)
            before = _current(files)
            there = images.of(before)
            if len(anew.missing(there)) > min(self._chunk_images, _EMBEDDED_WHILE_OTHERS_WAIT):
                return False
            anew.catch_up(there)
            self._require_readable(there, anew)
            embedded = anew.embedded(there)
            staged.add(embedded)
            self._jobs.renew(run.lease)
            manifest = staged.publish(embedded, expected_generation=before.generation)
            with self._database.transaction() as transaction:
                self._jobs.assert_held(transaction, run.lease)
                self._catalog.begin_move(transaction, index_id, generation=manifest.generation)
            # Of a merge that was still being recorded: its places are no more.
            turn.end_move()
            self._publisher.reconcile(files.index_prefix)
            # Without a stamp nothing says when the file would be worth another look.
            failures = [one for one in anew.failures(there) if one.stamp is not None]
            with self._database.transaction() as transaction:
                self._catalog.record_failures(transaction, index_id, failures)
        _log.info(
            "model_changed",
            index_prefix=str(files.index_prefix),
            generation=manifest.generation,
            images=manifest.images,
            left_out=len(there) - manifest.images,
            model=manifest.model_name,
            fingerprint=manifest.fingerprint,
            job_id=run.lease.job.job_id,
        )
        return True

    def _require_readable(self, images: Mapping[str, str], anew: Reembedding) -> None:
        """Raise unless those that could not be read may leave the index with its old vectors."""
        left_out = anew.unreadable(images)
        roots = self._setup.image_roots
        for root in sorted({roots.root_of(path) for path in left_out}):
            if not roots.is_present(root):
                raise StorageError(
                    f"The image root {root!r} is empty or not there, so its images cannot be "
                    "embedded, and the index keeps its model; mount it."
                )
        if len(left_out) > self._max_share * len(images):
            raise Conflict(
                f"{len(left_out):,} of {len(images):,} images cannot be read, the first is "
                f"{left_out[0]!r}: more than {self._max_share:.0%} "
                "(IMAGEDEX_INDEXING__REMOVAL_SHARE), so the index keeps its model. Bring their "
                "files back, or index their directory so that they leave the index; then retry "
                "this job, which goes on where it was."
            )

    def _finish(self, run: JobRun, files: IndexFiles) -> None:
        """Leave nothing behind; also of a run that was cut short after it had published."""
        job = run.lease.job
        self._on_published(files.index_prefix)
        if not self._jobs.get(job.job_id).is_planned:
            manifest = files.current()
            images = manifest.images if manifest is not None else 0
            self._jobs.save_plan(
                run.lease, (), total_images=images, settled_images=images, failures=()
            )
        states = (ChunkState.PLANNED, ChunkState.EMBEDDED)
        numbers = [c.number for state in states for c in self._jobs.chunks(job.job_id, state)]
        with self._database.transaction() as transaction:
            self._jobs.assert_held(transaction, run.lease)
            self._jobs.checkpoint_committed(transaction, job.job_id, numbers)
        # Those of changes that failed before are of no more use either.
        ended = {*self._jobs.embedded_job_ids(job.index_id, Lane.UPKEEP)}
        ended -= {*self._jobs.active_job_ids(job.index_id)}
        self._remove_parts(files, {job.job_id, *ended})
        self._publisher.sweep_generations(run.lease, files.index_prefix)

    def _remove_parts(self, files: IndexFiles, job_ids: Collection[str]) -> None:
        try:
            for job_id in sorted(job_ids):
                files.remove_parts(job_id)
        except StorageError as error:  # What stays is swept later.
            _log.warning("sweep_failed", index_prefix=str(files.index_prefix), error=str(error))


class _Staged:
    """Segments that are built of new vectors, and which image lies where in them."""

    def __init__(self, prepared: PreparedReplacement) -> None:
        self._prepared = prepared
        self._images: dict[str, EmbeddedImage] = {}
        self._places: dict[str, RowLocation] = {}
        self._outdated: list[RowLocation] = []

    def add(self, images: Mapping[str, EmbeddedImage]) -> None:
        """Build a segment of those that are not in one yet, or were embedded again since."""
        rows_by_part: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for path, image in images.items():
            if self._images.get(path) != image:
                rows_by_part[image.part].append((image.row, path))
        if not rows_by_part:
            return
        parts = [(name, sorted(rows)) for name, rows in sorted(rows_by_part.items())]
        number = self._prepared.add(
            [PartRows(name, [row for row, _ in rows]) for name, rows in parts]
        )
        for place, path in enumerate(path for _, rows in parts for _, path in rows):
            if path in self._places:
                self._outdated.append(self._places[path])
            self._places[path] = RowLocation(number, place)
            self._images[path] = images[path]

    def publish(self, images: Collection[str], *, expected_generation: int) -> Manifest:
        """Publish a generation of these images; the others that were built are left out."""
        left = [place for path, place in self._places.items() if path not in images]
        return self._prepared.publish(
            expected_generation=expected_generation, removed=[*self._outdated, *left]
        )


def _current(files: IndexFiles) -> Manifest:
    manifest = files.current()
    if manifest is None:
        raise StorageError(
            f"There is no index at {str(files.index_prefix)!r} any more; mount its storage."
        )
    return manifest
