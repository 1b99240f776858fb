"""Bringing the catalog to what an index says."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from imagedex.catalog import Catalog
from imagedex.core.errors import StorageError
from imagedex.indexing.sealing import Seals
from imagedex.indexing.turns import IndexTurns
from imagedex.jobs import JobStore
from imagedex.segments import IndexFiles, Manifest

if TYPE_CHECKING:
    from imagedex.database import Database

_BATCH = 5_000

_log = structlog.get_logger(__name__)


class Reconciler:
    """Fills the catalog from the files of any index. Whoever calls it has the index's turn."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        jobs: JobStore,
        files_of: Callable[[Path], IndexFiles],
        on_published: Callable[[Path], object],
        turns: IndexTurns,
        seals: Seals | None = None,
    ) -> None:
        """Take what a reconciler works on; ``turns`` are those of whoever else publishes.

        With ``seals``, an index is sealed before it is looked at for the first time.
        """
        self._seals = seals
        self._database = database
        self._catalog = catalog
        self._jobs = jobs
        self._files_of = files_of
        self._on_published = on_published
        self._turns = turns

    def reconcile(self, index_prefix: Path) -> None:
        """Make the catalog say what the current generation says.

        It lags after a crash between ``CURRENT`` and the database, or when the database was
        restored from a backup: then it goes on, step by step, unless the index was put back to an
        older state meanwhile. It leads when the index's files were restored. In these two cases it
        is filled anew from the segments. The current generation is announced once more, since a
        crash may have come before that. A ``CURRENT`` that was left behind is made good.

        Raises StorageError when the catalog knows of a generation and the index has no files
        at all: a missing mount is not a new index.
        """
        index = self._catalog.ensure_index(index_prefix)
        files = self._files_of(index_prefix)
        if self._seals is not None:
            self._seals.seal(index_prefix, index.index_id)
        files.heal()
        manifest = files.current()
        if manifest is None:
            if index.generation > 0:
                raise missing_index(index_prefix, index.generation)
            return
        if manifest.generation != index.generation:
            self._turns.of(index_prefix).end_move()
        if index.is_moving and not self._turns.of(index_prefix).is_moving:
            self._place_all(index.index_id, files, manifest)
        if manifest.generation == index.generation:
            return
        _log.warning(
            "catalog_reconciled",
            index_prefix=str(index_prefix),
            catalog_generation=index.generation,
            index_generation=manifest.generation,
        )
        # A database that was lost counts its fences from the beginning.
        self._jobs.raise_fence(index.index_id, max(manifest.fence, manifest.merge_fence))
        known = index.generation
        if known > manifest.generation or 0 < known < manifest.base_generation:
            self._fill_anew(index.index_id, files, manifest)
        else:
            self._replay(index.index_id, files, manifest, since=known)
        self._on_published(index_prefix)

    def fill_anew(self, index_prefix: Path) -> None:
        """Make the catalog from nothing but the index, whatever it says now.

        Failures stay known, but for images that the index holds. Raises StorageError when there
        is no index.
        """
        index = self._catalog.ensure_index(index_prefix)
        files = self._files_of(index_prefix)
        manifest = files.current()
        if manifest is None:
            raise missing_index(index_prefix, index.generation)
        self._jobs.raise_fence(index.index_id, max(manifest.fence, manifest.merge_fence))
        self._turns.of(index_prefix).end_move()
        self._fill_anew(index.index_id, files, manifest)
        self._on_published(index_prefix)

    def _fill_anew(self, index_id: int, files: IndexFiles, manifest: Manifest) -> None:
        failures = list(self._catalog.failures(index_id))
        with self._database.transaction() as transaction:
            self._catalog.forget_index(transaction, index_id)
        self._replay(index_id, files, manifest, since=0)
        known = self._catalog.lookup(index_id, [failure.image_path for failure in failures])
        with self._database.transaction() as transaction:
            # Of an image that is there, a failure may be older than what is indexed of it.
            self._catalog.record_failures(
                transaction, index_id, [f for f in failures if f.image_path not in known]
            )

    def _place_all(self, index_id: int, files: IndexFiles, manifest: Manifest) -> None:
        """Place all images of a generation that was recorded but for locations.

        After a merge that was cut short, and after a change of model. Whatever lies in a segment
        that is no more is placed where the current generation has it, or else forgotten.
        """
        numbers = {entry.number for entry in manifest.segments}
        gone = files.read_tombstones(manifest.tombstones)
        for entry in manifest.segments:
            rows = (row for row in files.read_facts(entry) if row[0] not in gone)
            while batch := list(islice(rows, _BATCH)):
                with self._database.transaction() as transaction:
                    self._catalog.place(transaction, index_id, batch, segments=numbers)
        with self._database.transaction() as transaction:
            # A change of model leaves out what it could not embed.
            self._catalog.forget_lost(transaction, index_id, segments=numbers)
            self._catalog.end_move(transaction, index_id)

    def _replay(self, index_id: int, files: IndexFiles, manifest: Manifest, *, since: int) -> None:
        """Bring the catalog from generation ``since`` to the manifest's, one after the other.

        Each step can be the last: the next replay goes on from the generation that it recorded.
        """
        numbers = {entry.number for entry in manifest.segments}
        generations = {entry.generation for entry in manifest.segments}
        generations |= {entry.generation for entry in manifest.tombstones}
        # The last step, also when it brought no files of its own.
        generations.add(manifest.generation)
        # A merge writes all tombstones again under its own generation, so that only all of them
        # together say what counts: a row that does not may be older than what it would replace.
        gone = files.read_tombstones(manifest.tombstones)
        for generation in sorted(generations):
            if generation <= since:
                continue
            segments = [entry for entry in manifest.segments if entry.generation == generation]
            buried = files.read_tombstones(
                [entry for entry in manifest.tombstones if entry.generation == generation]
            )
            # What a merge wrote were segments before, and belongs to no chunk.
            is_merge = bool(segments) and not any(entry.chunks for entry in segments)
            rows = (
                row for entry in segments for row in files.read_facts(entry) if row[0] not in gone
            )
            bring_in = self._catalog.bring_in_moved if is_merge else self._catalog.bring_in
            # Some at a time, each read before its transaction: others wait to write, such as
            # renewals of leases.
            while batch := list(islice(rows, _BATCH)):
                with self._database.transaction() as transaction:
                    bring_in(transaction, index_id, batch)
            with self._database.transaction() as transaction:
                self._catalog.record_generation(
                    transaction, index_id, generation=generation, indexed=()
                )
                # After the rows: an image that changed has moved on from the row that is buried.
                self._catalog.record_tombstones(transaction, index_id, buried)
                for entry in segments:
                    self._jobs.checkpoint_committed(transaction, entry.job_id, entry.chunks)
                if generation == manifest.generation:
                    # A merge leaves no tombstones of the rows that it dropped.
                    self._catalog.forget_lost(transaction, index_id, segments=numbers)


def missing_index(index_prefix: Path, generation: int) -> StorageError:
    """Return the error for an index whose files are gone though the catalog knows of it."""
    return StorageError(
        f"Generation {generation} was published to {str(index_prefix)!r}, but nothing is there. "
        "Mount its storage; if its files were deleted on purpose, use another index prefix or "
        "another home."
    )
