"""Bring embedded chunks into a new generation, and the catalog up to the current one.

Order (invariant 3): segment files, manifest, ``CURRENT``, then one database transaction with the
catalog's rows and the job's checkpoint. A crash before ``CURRENT`` leaves the old generation and
the chunks as they were; a crash after it leaves a catalog that lags, which ``reconcile`` mends.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from imagedex.catalog import Catalog
from imagedex.core.errors import StorageError
from imagedex.core.images import RowLocation
from imagedex.database import Database, Transaction
from imagedex.embedding import EmbeddingModel
from imagedex.jobs import Chunk, ChunkAction, ChunkState, JobStore, Lease
from imagedex.segments import Commit, IndexFiles, Manifest

_log = structlog.get_logger(__name__)


class Publisher:
    """Publishes generations of any index. Only a lease's holder calls it for that index."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        jobs: JobStore,
        model: EmbeddingModel,
        files_of: Callable[[Path], IndexFiles],
        on_published: Callable[[Path], object],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._jobs = jobs
        self._model = model
        self._files_of = files_of
        self._on_published = on_published

    def reconcile(self, index_prefix: Path, *, start_anew: bool = False) -> None:
        """Make the catalog say what the current generation says.

        It lags after a crash between ``CURRENT`` and the database, or when the database was
        restored from a backup; it leads when the index's files were restored. Then it is filled
        again from the segments.

        Raises StorageError when the catalog knows of a generation and the index has no files
        at all: a missing mount is not a new index. With ``start_anew`` it becomes one.
        """
        index = self._catalog.ensure_index(index_prefix)
        files = self._files_of(index_prefix)
        manifest = files.current()
        if manifest is None and index.generation > 0 and not start_anew:
            raise StorageError(
                f"Generation {index.generation} was published to {str(index_prefix)!r}, but "
                "nothing is there. Mount its storage; if its files were deleted on purpose, "
                "index again with force_reindex."
            )
        generation = manifest.generation if manifest is not None else 0
        if generation == index.generation:
            return
        _log.warning(
            "catalog_reconciled",
            index_prefix=str(index_prefix),
            catalog_generation=index.generation,
            index_generation=generation,
        )
        if manifest is not None:
            # A database that was lost counts its fences from the beginning.
            self._jobs.raise_fence(index.index_id, manifest.fence)
        with self._database.transaction() as transaction:
            known = index.generation
            if known > generation:
                self._catalog.forget_index(transaction, index.index_id)
                known = 0
            if manifest is not None:
                self._replay(transaction, index.index_id, files, manifest, since=known)

    def _replay(
        self,
        transaction: Transaction,
        index_id: int,
        files: IndexFiles,
        manifest: Manifest,
        *,
        since: int,
    ) -> None:
        segments = [entry for entry in manifest.segments if entry.generation > since]
        self._catalog.record_generation(
            transaction,
            index_id,
            generation=manifest.generation,
            indexed=(row for entry in segments for row in files.read_facts(entry)),
        )
        # After the rows: an image that changed has moved on from the row that is buried here.
        tombstones = [entry for entry in manifest.tombstones if entry.generation > since]
        self._catalog.record_tombstones(transaction, index_id, files.read_tombstones(tombstones))
        for entry in segments:
            self._jobs.checkpoint_committed(transaction, entry.job_id, entry.chunks)

    def publish(self, lease: Lease, index_prefix: Path) -> None:
        """Publish all that the job has embedded; does nothing when that is nothing.

        Raises LeaseLost when another owner has taken over, StorageError when the storage fails;
        in both cases the current generation is what it was.
        """
        self.reconcile(index_prefix)
        files = self._files_of(index_prefix)
        chunks = self._jobs.chunks(lease.job.job_id, ChunkState.EMBEDDED)
        chunks = self._without_lost_parts(lease, files, chunks)
        if not chunks:
            return
        index_id = lease.job.index_id
        gone = [
            path
            for chunk in chunks
            if chunk.action is ChunkAction.REMOVE
            for path in chunk.image_paths
        ]
        parts = tuple(chunk.part for chunk in chunks if chunk.part is not None)
        embedded = [path for part in parts for path in files.read_part_paths(part)]
        removed = self._locations(index_id, gone + embedded)
        numbers = tuple(chunk.number for chunk in chunks)
        self._jobs.renew(lease)
        manifest = None
        if parts or removed:
            expected = self._catalog.ensure_index(index_prefix).generation
            manifest = files.commit(
                Commit(
                    expected_generation=expected,
                    fence=lease.fence,
                    model_name=self._model.name,
                    fingerprint=self._model.fingerprint,
                    dim=self._model.dim,
                    job_id=lease.job.job_id,
                    chunks=numbers,
                    parts=parts,
                    removed=removed,
                )
            )
        with self._database.transaction() as transaction:
            self._jobs.assert_held(transaction, lease)
            self._catalog.forget_images(transaction, index_id, gone)
            if manifest is not None:
                new = [e for e in manifest.segments if e.generation == manifest.generation]
                self._catalog.record_generation(
                    transaction,
                    index_id,
                    generation=manifest.generation,
                    indexed=(row for entry in new for row in files.read_facts(entry)),
                )
            self._jobs.checkpoint_committed(transaction, lease.job.job_id, numbers)
        if manifest is not None:
            _log.info(
                "generation_published",
                index_prefix=str(index_prefix),
                generation=manifest.generation,
                images=manifest.images,
                job_id=lease.job.job_id,
            )
            self._on_published(index_prefix)

    def may_publish(self, lease: Lease, index_prefix: Path) -> bool:
        """Say whether the lease's fence is high enough for what was published already."""
        manifest = self._files_of(index_prefix).current()
        return manifest is None or lease.fence >= manifest.fence

    def sweep(self, index_prefix: Path, index_id: int) -> None:
        """Delete files that nothing needs any more."""
        self._files_of(index_prefix).sweep(keep_jobs=self._jobs.active_job_ids(index_id))

    def _without_lost_parts(
        self, lease: Lease, files: IndexFiles, chunks: list[Chunk]
    ) -> list[Chunk]:
        lost = [c.number for c in chunks if c.part is not None and not files.has_part(c.part)]
        if lost:
            _log.warning("part_files_lost", job_id=lease.job.job_id, chunks=lost)
            self._jobs.replan_chunks(lease, lost)
        return [chunk for chunk in chunks if chunk.number not in lost]

    def _locations(self, index_id: int, image_paths: list[str]) -> tuple[RowLocation, ...]:
        known = self._catalog.lookup(index_id, image_paths)
        return tuple(entry.location for entry in known.values() if entry.location is not None)
