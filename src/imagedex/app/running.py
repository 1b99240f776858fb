"""The jobs of one process, wired: which flow does which kind of job."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from imagedex.app.foundations import Foundations
from imagedex.app.searching import Searching
from imagedex.embedding import VectorSpace
from imagedex.engine import Engine
from imagedex.indexing import (
    IndexFlow,
    MergePolicy,
    Merger,
    ModelChanger,
    Publisher,
    RemovalRules,
    Seals,
    WorkerSetup,
)
from imagedex.ingest import IgnoreRules
from imagedex.jobs import JobKind, JobRunner
from imagedex.legacy import ImportFlow
from imagedex.upkeep import DatabaseBackups, SnapshotJobs

_IMPORTED_FOR_EMBEDDED = 2
_JOBS_AT_ONCE = 4  # A rebuild must not keep those of other indexes waiting.


class Running:
    """What runs the jobs of one process."""

    def __init__(
        self, base: Foundations, searching: Searching, snapshots: SnapshotJobs, engine: Engine
    ) -> None:
        self._base = base
        # Of a database that nobody else can own there is no former owner.
        self._seals = Seals(base.jobs, base.files_of) if base.ownership.is_shared else None
        self.publisher = self._publisher_of(base.model, searching.queries.refresh)
        # Owners of one home share a prefix, so that a restart knows the leases of its former life.
        self._owner_prefix = f"{socket.gethostname()}:{base.settings.home}:"
        self._runner = self._make_runner(searching, snapshots, engine)

    def start(self) -> None:
        """Begin to run jobs."""
        self._runner.start()

    def stalled_threads(self, patience_seconds: float) -> list[str]:
        """Return the threads that run jobs and no longer do (see JobRunner)."""
        return self._runner.stalled_threads(patience_seconds)

    def expire_own(self) -> None:
        """Let the jobs of a former life of this process go on at once."""
        self._base.jobs.expire_own(self._owner_prefix)

    def close(self, *, is_lost: bool = False) -> bool:
        """Stop running jobs, and say whether all did; they resume after their last chunk.

        ``is_lost`` says that another process has taken them over.
        """
        if is_lost:
            self._runner.abandon()
        return self._runner.close()

    def _publisher_of(
        self, space: VectorSpace, on_published: Callable[[Path], object]
    ) -> Publisher:
        return Publisher(
            database=self._base.database,
            catalog=self._base.catalog,
            jobs=self._base.jobs,
            model=space,
            image_roots=self._base.image_roots,
            files_of=self._base.files_of,
            on_published=on_published,
            turns=self._base.turns,
            seals=self._seals,
        )

    def _make_runner(
        self, searching: Searching, snapshots: SnapshotJobs, engine: Engine
    ) -> JobRunner:
        base = self._base
        settings = base.settings.indexing
        # An index can be of another model than this process serves; its jobs go on all the same.
        publisher_of_any = self._publisher_of(base.model, searching.refresh_if_served)
        merger = Merger(
            publisher_of_any,
            base.jobs,
            MergePolicy(max_deltas=settings.max_deltas, rebuild_share=settings.rebuild_share),
        )
        setup = WorkerSetup(
            model=base.model,
            image_roots=base.image_roots,
            limits=base.limits,
            batch_images=settings.batch_images,
            has_remote_workers=base.settings.engine.inventory is not None,
        )
        flow = IndexFlow(
            database=base.database,
            catalog=base.catalog,
            jobs=base.jobs,
            engine=engine,
            publisher=self.publisher,
            merger=merger,
            setup=setup,
            model_of=base.model_of,
            chunk_images=settings.chunk_images,
            commit_images=settings.commit_images,
            commit_seconds=settings.commit_seconds,
            files_of=base.files_of,
            ignore=IgnoreRules(settings.ignore),
            removal=RemovalRules(
                grace_seconds=settings.removal_grace_seconds, max_share=settings.removal_share
            ),
            settle_seconds=settings.settle_seconds,
            shared_from_images=settings.shared_from_images,
            pace=base.pace,
        )
        changer = ModelChanger(
            database=base.database,
            catalog=base.catalog,
            jobs=base.jobs,
            engine=engine,
            publisher=publisher_of_any,
            turns=base.turns,
            setup=setup,
            files_of=base.files_of,
            find=base.models.named,
            warm=searching.queries.warm,
            cool=searching.queries.cool,
            on_published=searching.refresh_if_served,
            chunk_images=settings.chunk_images,
            max_share=settings.removal_share,
            pace=base.pace,
        )
        import_flow = ImportFlow(
            catalog=base.catalog,
            jobs=base.jobs,
            files_of=base.files_of,
            publisher=publisher_of_any,
            publisher_of=lambda space: self._publisher_of(space, searching.refresh_if_served),
            merger=merger,
            image_roots=base.image_roots,
            limits=base.limits,
            processes=settings.threads_per_worker or len(os.sched_getaffinity(0)),
            # Nothing is embedded, so that an image costs a fraction of what it costs a worker.
            chunk_images=_IMPORTED_FOR_EMBEDDED * settings.chunk_images,
            commit_images=settings.commit_images,
        )
        handlers = {
            JobKind.FULL: flow.run,
            JobKind.INCREMENTAL: flow.run,
            JobKind.REBUILD: merger.rebuild,
            JobKind.CHANGE_MODEL: changer.run,
            JobKind.IMPORT: import_flow.run,
            JobKind.SNAPSHOT: snapshots.run_snapshot,
            JobKind.RESTORE: snapshots.run_restore,
            JobKind.BACKUP: DatabaseBackups(
                base.database,
                base.settings.backups_directory,
                keep=base.settings.backup.keep,
            ).run,
        }
        return JobRunner(
            base.jobs,
            handlers,
            owner=f"{self._owner_prefix}{os.getpid()}:{secrets.token_hex(4)}",
            threads=_JOBS_AT_ONCE,
        )
