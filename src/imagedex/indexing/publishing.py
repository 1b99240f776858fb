"""Bring embedded chunks, or merged segments, into a new generation, and the catalog up to it.

Order (invariant 3): segment files, manifest, ``CURRENT``, then one database transaction with the
catalog's rows and the job's checkpoint. A crash before ``CURRENT`` leaves the old generation and
the chunks as they were; a crash after it leaves a catalog that lags, which ``reconcile`` mends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from imagedex.catalog import Catalog
from imagedex.core.errors import StorageError
from imagedex.core.images import ImageFacts, RowLocation
from imagedex.embedding import VectorSpace
from imagedex.indexing.absences import surely_gone
from imagedex.indexing.reconciling import Reconciler
from imagedex.indexing.sealing import Seals
from imagedex.indexing.turns import IndexTurn, IndexTurns
from imagedex.ingest import ImageRoots
from imagedex.jobs import (
    Chunk,
    ChunkAction,
    ChunkDone,
    ChunkState,
    JobStatus,
    JobStore,
    Lane,
    Lease,
)
from imagedex.segments import Commit, IndexFiles, Manifest, Merge

if TYPE_CHECKING:
    from imagedex.database import Database, Transaction

_MOVES_AT_ONCE = 2_000  # Some hundredths of a second, in which other writers wait.
_MOVES_PAUSE_SECONDS = 0.002

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _StoredSpace:
    """The vectors of an index that is there: a ``VectorSpace``."""

    name: str
    dim: int
    fingerprint: str


def _is_usable(files: IndexFiles, chunk: Chunk, space: VectorSpace) -> bool:
    """Say whether a chunk can be published; a part of another model goes, so that it is lost."""
    if chunk.part is None:
        return True
    fingerprint = files.part_fingerprint(chunk.part)
    if fingerprint is not None and fingerprint != space.fingerprint:
        files.remove_part(chunk.part)
    return fingerprint == space.fingerprint


def _go_on() -> None:
    """Be the checkpoint of what is not to be stopped."""


class Publisher:
    """Publishes generations of any index. Only a lease's holder calls it for that index."""

    def __init__(
        self,
        *,
        database: Database,
        catalog: Catalog,
        jobs: JobStore,
        model: VectorSpace,
        image_roots: ImageRoots,
        files_of: Callable[[Path], IndexFiles],
        on_published: Callable[[Path], object],
        turns: IndexTurns,
        seals: Seals | None = None,
    ) -> None:
        """Take what it works with; ``model`` is that of new indexes, and of ``publish_done``.

        ``seals`` are those of an owner of the jobs that has taken them over from another.
        """
        self._database = database
        self._catalog = catalog
        self._jobs = jobs
        self._model = model
        self._image_roots = image_roots
        self._files_of = files_of
        self._on_published = on_published
        self._turns = turns
        self._seals = seals
        self._reconciler = Reconciler(
            database=database,
            catalog=catalog,
            jobs=jobs,
            files_of=files_of,
            on_published=on_published,
            turns=turns,
            seals=seals,
        )

    def reconcile(self, index_prefix: Path) -> None:
        """Make the catalog say what the current generation says; see ``Reconciler``."""
        with self._turns.of(index_prefix).held():
            self._reconciler.reconcile(index_prefix)

    def publish_left_over(self, lease: Lease, index_prefix: Path) -> None:
        """Publish what other jobs of the index have embedded and not yet published.

        Called before a job looks at any file. Whatever was read before it is then published
        before it, so that a job which went aside for this one cannot bring an older picture,
        or an older removal, back over a newer one.
        """
        for job_id in self._jobs.embedded_job_ids(lease.job.index_id):
            if job_id != lease.job.job_id:
                self._publish(lease, index_prefix, job_id)

    def publish(self, lease: Lease, index_prefix: Path) -> None:
        """Publish all that the job has embedded; does nothing when that is nothing.

        Chunks whose part files are gone, or of a model that the index no longer has, are planned
        again. Raises LeaseLost when another owner
        has taken over, StorageError when the storage fails; in both cases the current
        generation is what it was.
        """
        lost = self._publish(lease, index_prefix, lease.job.job_id)
        if lost:
            self._jobs.replan_chunks(lease, lost)

    def _publish(self, lease: Lease, index_prefix: Path, job_id: str) -> list[int]:
        """Publish a job's embedded chunks; return those whose part files are of no use."""
        with self._turns.of(index_prefix).held():
            # Before anything is looked up: it may find that chunks are published already.
            self.reconcile(index_prefix)
            files = self._files_of(index_prefix)
            space = self._space_of(files)
            embedded = self._jobs.chunks(job_id, ChunkState.EMBEDDED)
            lost = [chunk.number for chunk in embedded if not _is_usable(files, chunk, space)]
            if lost:
                _log.warning("part_files_lost", job_id=job_id, chunks=lost)
            chunks = [chunk for chunk in embedded if chunk.number not in lost]
            if chunks:
                self._publish_chunks(lease, index_prefix, job_id, chunks, space)
        return lost

    def _space_of(self, files: IndexFiles) -> VectorSpace:
        """Return what vectors the index has: its own model's, or the default one's if it is new."""
        manifest = files.current()
        if manifest is None:
            return self._model
        return _StoredSpace(manifest.model_name, manifest.dim, manifest.fingerprint)

    def publish_done(self, lease: Lease, index_prefix: Path, done: Sequence[ChunkDone]) -> None:
        """Publish chunks of the job that no checkpoint has recorded as embedded before.

        Their checkpoint comes with the generation, so that another job never finds them left
        over. Does nothing when there are none; raises as ``publish`` does.
        """
        if not done:
            return
        index_id, job_id = lease.job.index_id, lease.job.job_id
        parts = tuple(one.part for one in done if one.part is not None)
        numbers = tuple(one.number for one in done)

        def record(transaction: Transaction) -> None:
            for one in done:
                self._jobs.checkpoint_embedded(transaction, lease, one)
                # Without a stamp nothing says when the file would be worth another look.
                failures = [failure for failure in one.failures if failure.stamp is not None]
                self._catalog.record_failures(transaction, index_id, failures)

        with self._turns.of(index_prefix).held():
            self.reconcile(index_prefix)
            self._commit(
                lease,
                index_prefix,
                job_id,
                numbers,
                parts,
                space=self._model,
                gone=[],
                record=record,
            )

    def _publish_chunks(
        self,
        lease: Lease,
        index_prefix: Path,
        job_id: str,
        chunks: list[Chunk],
        space: VectorSpace,
    ) -> None:
        removals = [chunk for chunk in chunks if chunk.action is ChunkAction.REMOVE]
        # Looked at once more: storage that failed may have let days pass since they were planned,
        # and the share of the images may be away as well.
        gone = surely_gone(
            (path for chunk in removals for path in chunk.image_paths), self._image_roots
        )
        parts = tuple(chunk.part for chunk in chunks if chunk.part is not None)
        numbers = tuple(chunk.number for chunk in chunks)

        def record(transaction: Transaction) -> None:
            self._catalog.forget_images(transaction, lease.job.index_id, gone)

        self._commit(
            lease, index_prefix, job_id, numbers, parts, space=space, gone=gone, record=record
        )

    def _commit(
        self,
        lease: Lease,
        index_prefix: Path,
        job_id: str,
        numbers: tuple[int, ...],
        parts: tuple[str, ...],
        *,
        space: VectorSpace,
        gone: list[str],
        record: Callable[[Transaction], None],
    ) -> None:
        """Publish parts and removals; ``record`` begins the transaction that follows.

        The caller has the turn.
        """
        files = self._files_of(index_prefix)
        index_id = lease.job.index_id
        # Read before the transaction: a share that hangs must not hold up all writers.
        facts = [one for part in parts for one in files.read_part_facts(part)]
        removed = self._locations(index_prefix, index_id, [*gone, *(f.image_path for f in facts)])
        self._jobs.renew(lease)
        manifest = None
        rows: list[tuple[RowLocation, ImageFacts]] = []
        if parts or removed:
            manifest = files.commit(
                Commit(
                    expected_generation=self._catalog.ensure_index(index_prefix).generation,
                    fence=lease.fence,
                    model_name=space.name,
                    fingerprint=space.fingerprint,
                    dim=space.dim,
                    job_id=job_id,
                    chunks=numbers,
                    parts=parts,
                    removed=removed,
                )
            )
            if self._seals is not None:
                self._seals.note_published(index_prefix)
            new = [e.number for e in manifest.segments if e.generation == manifest.generation]
            rows = [
                (RowLocation(number, row), one) for number in new for row, one in enumerate(facts)
            ]
        with self._database.transaction() as transaction:
            self._jobs.assert_held(transaction, lease)
            record(transaction)
            if manifest is not None:
                self._catalog.record_generation(
                    transaction, index_id, generation=manifest.generation, indexed=rows
                )
            self._jobs.checkpoint_committed(transaction, job_id, numbers)
        if manifest is not None:
            _log.info(
                "generation_published",
                index_prefix=str(index_prefix),
                generation=manifest.generation,
                images=manifest.images,
                job_id=job_id,
            )
            self._on_published(index_prefix)

    def merge(
        self,
        lease: Lease,
        index_prefix: Path,
        segments: frozenset[int],
        checkpoint: Callable[[], None] = _go_on,
    ) -> None:
        """Publish one segment in the place of several of the current generation.

        Other jobs of the index may publish until its last step; what they bring stays.
        ``checkpoint`` is called between the steps and ends it by raising. Raises LeaseLost,
        Superseded, StorageError, CorruptIndex; then nothing that is found has changed.
        """
        turn = self._turns.of(index_prefix)
        files = self._files_of(index_prefix)
        index_id = lease.job.index_id
        merge = Merge(
            fence=lease.fence,
            job_id=lease.job.job_id,
            segments=segments,
            beside_commits=lease.job.kind.lane is Lane.UPKEEP,
        )
        with files.prepare_merge(merge, checkpoint) as prepared:
            with turn.held():
                self.reconcile(index_prefix)
                # Of an earlier merge that was interrupted: the turn knows one at a time.
                self._record_moves(turn, index_id)
                self._jobs.renew(lease)
                manifest, moved = prepared.publish()
                with self._database.transaction() as transaction:
                    self._jobs.assert_held(transaction, lease)
                    self._catalog.begin_move(transaction, index_id, generation=manifest.generation)
                turn.begin_move(moved)
            _log.info(
                "segments_merged",
                index_prefix=str(index_prefix),
                generation=manifest.generation,
                merged=len(segments),
                segments=len(manifest.segments),
                job_id=lease.job.job_id,
            )
            try:
                # While the merge is prepared, its segment is open already.
                self._on_published(index_prefix)
            finally:
                self._record_moves(turn, index_id)

    def _record_moves(self, turn: IndexTurn, index_id: int) -> None:
        """Tell the catalog where rows lie now, some at a time, so that nobody waits for long.

        After a crash ``reconcile`` does the rest.
        """
        while self._record_some_moves(turn, index_id):
            # Whoever waits for the turn gets it here; a lock knows no line.
            time.sleep(_MOVES_PAUSE_SECONDS)

    def _record_some_moves(self, turn: IndexTurn, index_id: int) -> bool:
        """Return whether there may be more of them."""
        with turn.held():
            if not turn.is_moving:
                return False
            moves = turn.next_moves(_MOVES_AT_ONCE)
            with self._database.transaction() as transaction:
                self._catalog.move(transaction, index_id, moves)
                if not moves:
                    self._catalog.end_move(transaction, index_id)
            turn.moves_recorded(len(moves))
            if not moves:
                turn.end_move()
            return bool(moves)

    def current(self, index_prefix: Path) -> Manifest | None:
        """Return the current generation's manifest, or None while there is none."""
        return self._files_of(index_prefix).current()

    def may_publish(self, lease: Lease, index_prefix: Path) -> bool:
        """Say whether the lease's fence is high enough for what was published already."""
        manifest = self._files_of(index_prefix).current()
        if manifest is None:
            return True
        is_upkeep = lease.job.kind.lane is Lane.UPKEEP
        return lease.fence >= (manifest.merge_fence if is_upkeep else manifest.fence)

    def sweep(self, lease: Lease, index_prefix: Path, *, is_done: bool = False) -> None:
        """Delete files that nothing needs any more; what cannot be deleted stays, and is logged.

        ``is_done`` says that the job has nothing left to do, so that its parts go too.
        """
        done_job_id = lease.job.job_id if is_done else None
        keep = jobs_with_parts(self._jobs, lease.job.index_id, done_job_id=done_job_id)
        self._sweep(lease, index_prefix, keep)

    def sweep_generations(self, lease: Lease, index_prefix: Path) -> None:
        """Delete the files of generations that are kept no longer, as ``sweep`` does; no parts.

        For jobs beside which others may begin and write parts at any moment.
        """
        self._sweep(lease, index_prefix, None)

    def _sweep(self, lease: Lease, index_prefix: Path, keep_jobs: Sequence[str] | None) -> None:
        try:
            self._files_of(index_prefix).sweep(keep_jobs=keep_jobs, fence=lease.fence)
        except StorageError as error:
            _log.warning("sweep_failed", index_prefix=str(index_prefix), error=str(error))

    def _locations(
        self, index_prefix: Path, index_id: int, image_paths: list[str]
    ) -> tuple[RowLocation, ...]:
        turn = self._turns.of(index_prefix)
        known = self._catalog.lookup(index_id, image_paths)
        there = (turn.now(e.location) for e in known.values() if e.location is not None)
        return tuple(location for location in there if location is not None)


def jobs_with_parts(jobs: JobStore, index_id: int, *, done_job_id: str | None = None) -> list[str]:
    """Return the jobs of an index whose part files are needed, but for one that is done.

    Those are active ones, ones with chunks that are not published yet, and changes of model that
    failed: to retry one costs what is left to embed.
    """
    changes = jobs.embedded_job_ids(index_id, Lane.UPKEEP)
    return sorted(
        {
            *(one for one in changes if jobs.get(one).status is JobStatus.FAILED),
            *(one for one in jobs.active_job_ids(index_id) if one != done_job_id),
            *jobs.embedded_job_ids(index_id),
        }
    )
