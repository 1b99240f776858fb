"""Run an index job: plan, embed, commit, publish.

Every step can be repeated: the plan, each chunk and each commit are checkpoints, and a job that
is run again goes on after the last of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from imagedex.catalog import Catalog
from imagedex.core.errors import EngineError, NoWorkers
from imagedex.core.images import FailureReason
from imagedex.embedding import EmbeddingModel
from imagedex.engine import Engine
from imagedex.indexing.absences import RemovalRules, require_consent, sort_out
from imagedex.indexing.chunk import ChunkTask, WorkerSetup
from imagedex.indexing.dispatch import embed_all
from imagedex.indexing.known_vectors import KnownContents
from imagedex.indexing.merging import Merger
from imagedex.indexing.outcomes import adopt
from imagedex.indexing.pace import Pace
from imagedex.indexing.planning import Plan, plan_notified, plan_scan, settle_down
from imagedex.indexing.publishing import Publisher
from imagedex.indexing.supply import PlannedSupply
from imagedex.ingest import IgnoreRules, has_image_name, scan
from imagedex.jobs import (
    Chunk,
    ChunkAction,
    ChunkDone,
    ChunkState,
    Job,
    JobCancelled,
    JobKind,
    JobPaused,
    JobRun,
    JobStore,
    JobYielded,
    PlannedChunk,
    ScanFindings,
)
from imagedex.segments import IndexFiles

if TYPE_CHECKING:
    from imagedex.database import Database

_log = structlog.get_logger(__name__)

_NOTIFIED_ATTEMPTS = 3
"""How often a notified file is read that does not decode, the settle time apart."""

_MAY_BE_UNFINISHED = frozenset(
    {
        FailureReason.EMPTY,
        FailureReason.TRUNCATED,
        FailureReason.NOT_AN_IMAGE,
        FailureReason.DAMAGED,
        FailureReason.UNREADABLE,
    }
)

_COMMIT_SHARE = 0.1
"""Of a job's time: a longer job publishes less often, or a day's work would be thousands of
segments, each of which every query searches."""


class IndexFlow:
    """The handler of index jobs; one instance runs any number of jobs, one per index at a time."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        jobs: JobStore,
        engine: Engine,
        publisher: Publisher,
        merger: Merger,
        setup: WorkerSetup,
        model_of: Callable[[Path], EmbeddingModel],
        chunk_images: int,
        commit_images: int,
        commit_seconds: float,
        files_of: Callable[[Path], IndexFiles],
        ignore: IgnoreRules,
        removal: RemovalRules,
        settle_seconds: float,
        shared_from_images: int,
        pace: Pace,
    ) -> None:
        """Take what it works with.

        ``model_of`` says which model an index has, which can change while a job runs; that of
        ``setup`` is not used.
        """
        self._database = database
        self._catalog = catalog
        self._jobs = jobs
        self._engine = engine
        self._publisher = publisher
        self._merger = merger
        self._setup = setup
        self._model_of = model_of
        self._chunk_images = chunk_images
        self._commit_images = commit_images
        self._commit_seconds = commit_seconds
        self._files_of = files_of
        self._ignore = ignore
        self._removal = removal
        self._settle_seconds = settle_seconds
        self._shared_from_images = shared_from_images
        self._pace = pace

    def run(self, run: JobRun) -> None:
        """Run a job to its end, or until it should stop (see ``JobRun.checkpoint``)."""
        job = run.lease.job
        index_prefix = Path(job.request["index_prefix"])
        self._publisher.reconcile(index_prefix)
        if not self._publisher.may_publish(run.lease, index_prefix):
            raise JobYielded("The index was published under a higher fence than this lease has.")
        self._publisher.publish_left_over(run.lease, index_prefix)
        if not job.is_planned:
            self._plan(run, job)
        try:
            self._embed_and_publish(run, index_prefix)
        except (JobCancelled, JobYielded, EngineError, NoWorkers):
            # What was embedded before is good and was paid for.
            self._publisher.publish(run.lease, index_prefix)
            raise
        if job.kind is JobKind.FULL:
            self._remove_absent(run, index_prefix)
        else:
            self._try_unfinished_again(run)
        self._merger.merge_if_due(run.lease, index_prefix)
        self._publisher.sweep(run.lease, index_prefix)

    def _embed_and_publish(self, run: JobRun, index_prefix: Path) -> None:
        while True:
            if chunks := self._jobs.chunks(run.lease.job.job_id, ChunkState.PLANNED):
                self._embed(run, index_prefix, chunks)
            self._publisher.publish(run.lease, index_prefix)
            # Publishing leaves work when part files were lost: their chunks are planned again.
            if not self._jobs.chunks(run.lease.job.job_id, ChunkState.PLANNED):
                return

    def _plan(self, run: JobRun, job: Job) -> None:
        # No checkpoint before the plan is saved: a job that went aside here would scan anew each
        # time, and never come to an end where others come often.
        plan = self._make_plan(run)
        # First, since the plan is the checkpoint after which nothing of this is done again.
        with self._database.transaction() as transaction:
            self._jobs.assert_held(transaction, run.lease)
            # A directory that could not be read fails the scan of it, but is no image.
            images = [failure for failure in plan.failures if has_image_name(failure.image_path)]
            self._catalog.record_failures(transaction, job.index_id, images)
            if job.kind is JobKind.FULL and self._is_present(job.request["image_dir"]):
                self._catalog.note_missing(
                    transaction,
                    job.index_id,
                    job.request["image_dir"],
                    plan.missing,
                    now=time.time(),
                )
        if job.kind is JobKind.FULL:
            self._jobs.record_findings(run.lease, _findings(plan))
        self._jobs.save_plan(
            run.lease,
            plan.chunks(self._chunk_images),
            total_images=plan.total_images,
            settled_images=plan.settled_images,
            failures=plan.failures,
        )
        run.checkpoint()
        _log.info(
            "job_planned",
            job_id=job.job_id,
            total_images=plan.total_images,
            embed=len(plan.embed),
            remove=len(plan.remove),
            missing=len(plan.missing),
            unsettled=plan.left_unsettled,
            failed=len(plan.failures),
        )

    def _make_plan(self, run: JobRun) -> Plan:
        job = run.lease.job
        roots = self._setup.image_roots
        if job.kind is JobKind.FULL:
            return self._plan_directory(run, roots.check(job.request["image_dir"]))
        paths = roots.check_all(job.request["image_paths"])
        return plan_notified(paths, self._catalog, job.index_id, roots)

    def _plan_directory(self, run: JobRun, directory: str) -> Plan:
        job = run.lease.job
        settled_before = time.time() - self._settle_seconds
        ignore = IgnoreRules((*self._ignore.globs, *job.request.get("ignore", ())))
        plan = plan_scan(
            scan(self._setup.image_roots, directory, ignore=ignore),
            self._catalog,
            job.index_id,
            directory,
            force=bool(job.request["force_reindex"]),
            settled_before_ns=int(settled_before * 1e9) if self._settle_seconds else None,
        )
        if plan.unsettled:
            latest = max(file.mtime_ns for file, _ in plan.unsettled) / 1e9
            # A clock of the share may be ahead of ours; then looking twice must do.
            pause = min(latest + self._settle_seconds - time.time(), self._settle_seconds)
            time.sleep(max(0.0, pause))
            settle_down(plan)
        return plan

    def _try_unfinished_again(self, run: JobRun) -> None:
        """Let notified files that may still be written be read once more, a little later."""
        if not self._settle_seconds:
            return
        images = self._jobs.retry_failures(
            run.lease, _MAY_BE_UNFINISHED, below_attempts=_NOTIFIED_ATTEMPTS
        )
        if images:
            raise JobYielded(
                f"{images} notified images may still be being written.",
                delay_seconds=self._settle_seconds,
            )

    def _is_present(self, directory: str) -> bool:
        """Say whether what is not found below a directory may be taken for gone."""
        roots = self._setup.image_roots
        return roots.is_present(roots.root_of(directory)) and roots.is_present(directory)

    def _remove_absent(self, run: JobRun, index_prefix: Path) -> None:
        """Remove images that moved, and those that have been gone for long; or ask first."""
        job = run.lease.job
        directory = job.request["image_dir"]
        missing = self._catalog.missing_since(job.index_id, directory)
        found = self._jobs.findings(job.job_id)
        if not missing or found is None or not self._is_present(directory):
            return
        due_before = time.time() - self._removal.grace_seconds
        manifest = self._files_of(index_prefix).current()
        of_this_job = {
            entry.number
            for entry in (manifest.segments if manifest else ())
            if entry.job_id == job.job_id
        }
        absences = sort_out(
            missing,
            self._catalog,
            job.index_id,
            roots=self._setup.image_roots,
            due_before=due_before,
            added=of_this_job,
        )
        run.checkpoint()
        if absences.moved:
            self._remove(run, index_prefix, absences.moved)
            found = replace(found, moved=found.moved + len(absences.moved))
            self._jobs.record_findings(run.lease, found)
        known = self._catalog.count_below(job.index_id, directory)
        try:
            is_allowed = require_consent(
                absences.due,
                known=known,
                max_share=self._removal.max_share,
                allowed=found.removals_allowed,
                directory=directory,
            )
        except JobPaused as paused:
            self._jobs.record_findings(run.lease, replace(found, removals_asked=paused.removals))
            raise
        if is_allowed:
            self._remove(run, index_prefix, absences.due)
            found = replace(found, removed=found.removed + len(absences.due))
        if is_allowed or found.removals_allowed is not None:
            # The answer was for these images: a later run of the job asks again.
            self._jobs.record_findings(run.lease, replace(found, removals_allowed=None))

    def _remove(self, run: JobRun, index_prefix: Path, image_paths: list[str]) -> None:
        size = self._chunk_images
        self._jobs.add_removals(
            run.lease,
            (
                PlannedChunk(ChunkAction.REMOVE, tuple(image_paths[start : start + size]))
                for start in range(0, len(image_paths), size)
            ),
        )
        self._publisher.publish(run.lease, index_prefix)

    def _embed(self, run: JobRun, index_prefix: Path, chunks: list[Chunk]) -> None:
        unpublished = 0
        started_at = published_at = time.monotonic()
        known = self._known_contents(run, index_prefix)

        def note(done: ChunkDone) -> None:
            nonlocal unpublished
            unpublished += self._checkpoint(run, done)
            known.add_part(done.part)

        def publish_if_due() -> None:
            nonlocal unpublished, published_at
            run.checkpoint()
            now = time.monotonic()
            pause = max(self._commit_seconds, _COMMIT_SHARE * (now - started_at))
            is_due = now - published_at >= pause
            if unpublished >= self._commit_images or (unpublished and is_due):
                self._publisher.publish(run.lease, index_prefix)
                known.follow_generation()
                unpublished = 0
                published_at = time.monotonic()

        job = run.lease.job
        adopted = adopt(
            self._files_of(index_prefix),
            job.job_id,
            chunks,
            fingerprint=self._model_of(index_prefix).fingerprint,
            image_roots=self._setup.image_roots,
        )
        for done in adopted:
            note(done)
            publish_if_due()
        numbers = {done.number for done in adopted}
        supply = PlannedSupply(
            (chunk for chunk in chunks if chunk.number not in numbers),
            pace=self._pace,
            split=lambda number, sizes: self._jobs.split_chunk(run.lease, number, sizes),
            fingerprint=lambda: self._model_of(index_prefix).fingerprint,
            task_of=lambda chunk: self._task_of(run, index_prefix, chunk, known),
        )
        is_shared = job.kind is JobKind.FULL or job.total_images >= self._shared_from_images
        embed_all(
            self._engine,
            supply,
            on_done=note,
            on_tick=publish_if_due,
            is_cancelled=run.is_cancelled,
            group=None if is_shared else job.job_id,
        )
        self._pace.store(at_once=True)

    def _known_contents(self, run: JobRun, index_prefix: Path) -> KnownContents:
        job = run.lease.job
        files = self._files_of(index_prefix)
        known = KnownContents(
            self._catalog,
            job.index_id,
            files,
            fingerprint=self._model_of(index_prefix).fingerprint,
            is_used=not job.request.get("force_reindex", False),
        )
        for chunk in self._jobs.chunks(job.job_id, ChunkState.EMBEDDED):
            known.add_part(chunk.part)
        return known

    def _task_of(
        self, run: JobRun, index_prefix: Path, chunk: Chunk, known: KnownContents
    ) -> ChunkTask:
        # For each chunk anew: the index may have got another model since the last one.
        model = self._model_of(index_prefix)
        known.be_of(model.fingerprint)
        return ChunkTask(
            setup=replace(self._setup, model=model),
            index_prefix=index_prefix,
            job_id=run.lease.job.job_id,
            number=chunk.number,
            fence=run.lease.fence,
            image_paths=chunk.image_paths,
            known=known.of(chunk.image_paths),
            place=self._setup.place_of(index_prefix),
        )

    def _checkpoint(self, run: JobRun, done: ChunkDone) -> int:
        with self._database.transaction() as transaction:
            self._jobs.checkpoint_embedded(transaction, run.lease, done)
            self._catalog.record_failures(transaction, run.lease.job.index_id, done.failures)
        return done.indexed


def _findings(plan: Plan) -> ScanFindings:
    return ScanFindings(
        added=plan.added,
        changed=len(plan.embed) - plan.added,
        unchanged=plan.unchanged,
        unsettled=plan.left_unsettled,
        missing=len(plan.missing),
    )
