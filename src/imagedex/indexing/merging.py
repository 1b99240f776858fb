"""Keeping the segments of an index few: which of them are merged, and when.

The largest segment is the main one; the others are deltas, which every query searches as well.
Merging costs what the merged rows cost, so it waits until it is worth it: a few small appends
cost nothing beyond themselves.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import structlog

from imagedex.core.errors import StorageError, Superseded
from imagedex.indexing.publishing import Publisher
from imagedex.jobs import (
    JobKind,
    JobRun,
    JobStatus,
    JobStore,
    JobYielded,
    Lane,
    Lease,
    NewJob,
    Priority,
)
from imagedex.segments import Manifest, SegmentEntry

_SPARE = 1.1  # Times the size of what is merged: room for others.

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class MergePolicy:
    """When segments are merged."""

    max_deltas: int = 8  # With more of them, the smaller ones become one.
    rebuild_share: float = 0.1  # Of the main segment's rows, added or gone since it was made:
    rebuild_rows: int = 5_000  # when more than that share and so many, all becomes one.


class Merger:
    """Merges segments of any index. Only a lease's holder calls it for that index."""

    def __init__(self, publisher: Publisher, jobs: JobStore, policy: MergePolicy) -> None:
        self._publisher = publisher
        self._jobs = jobs
        self._policy = policy

    def merge_if_due(
        self, lease: Lease, index_prefix: Path, *, publisher: Publisher | None = None
    ) -> None:
        """Merge what the policy says, at the end of a job that has published.

        When all segments are to become one, that is left to a job of its own, which runs beside
        those that follow. ``publisher`` is the job's, where it is not that of all others.

        Too little space, a full disk or a share that fails leaves the segments as they are: the
        job's images are published, and the next job tries again.
        """
        publisher = publisher or self._publisher
        job = lease.job
        manifest = publisher.current(index_prefix)
        due = due_segments(manifest, self._policy) if manifest else frozenset[int]()
        if manifest is None or not due:
            return
        if len(due) == len(manifest.segments):
            new = new_rebuild(job.index_id, index_prefix, images_count=manifest.images)
            rebuild = self._jobs.submit(new)
            _log.info("rebuild_due", index_prefix=str(index_prefix), job_id=rebuild.job_id)
            return
        if self._is_rebuilding(job.index_id):
            return  # It would have to begin anew if its segments went away.
        self._merge_some(publisher, lease, index_prefix, manifest, due)

    def _merge_some(
        self,
        publisher: Publisher,
        lease: Lease,
        index_prefix: Path,
        manifest: Manifest,
        due: frozenset[int],
    ) -> None:
        try:
            _require_space(index_prefix, manifest, due)
            publisher.merge(lease, index_prefix, due)
        except (StorageError, Superseded) as error:
            _log.warning(
                "merge_put_off",
                index_prefix=str(index_prefix),
                segments=len(due),
                error=str(error),
            )

    def _is_rebuilding(self, index_id: int) -> bool:
        """Say whether a rebuild runs; a change of model reads the current segments anew."""
        return self._jobs.is_running(index_id, Lane.UPKEEP) and any(
            job.kind is JobKind.REBUILD and job.status is JobStatus.RUNNING
            for job in map(self._jobs.get, self._jobs.active_job_ids(index_id))
        )

    def rebuild(self, run: JobRun) -> None:
        """Run a rebuild job: make one segment of all, with new search structures.

        Other jobs of the index run meanwhile.
        """
        job = run.lease.job
        index_prefix = Path(job.request["index_prefix"])
        self._publisher.reconcile(index_prefix)
        if not self._publisher.may_publish(run.lease, index_prefix):
            raise JobYielded("The index was published under a higher fence than this lease has.")
        run.checkpoint()
        manifest = self._publisher.current(index_prefix)
        images = manifest.images if manifest else 0
        is_wanted = not job.request.get("only_if_changed") or _has_changed(manifest)
        if manifest is not None and manifest.segments and is_wanted:
            numbers = frozenset(segment.number for segment in manifest.segments)
            _require_space(index_prefix, manifest, numbers)
            self._publisher.merge(run.lease, index_prefix, numbers, run.require_going_on)
            self._merge_what_came(run, index_prefix)
        if not job.is_planned:
            self._jobs.save_plan(
                run.lease, (), total_images=images, settled_images=images, failures=()
            )
        self._publisher.sweep_generations(run.lease, index_prefix)

    def _merge_what_came(self, run: JobRun, index_prefix: Path) -> None:
        """Merge the small segments that other jobs have published during a rebuild.

        They left them alone, and each of them costs every query.
        """
        manifest = self._publisher.current(index_prefix)
        due = due_segments(manifest, self._policy) if manifest else frozenset[int]()
        if manifest is None or not due or len(due) == len(manifest.segments):
            return
        # Where that fails the rebuild need not begin anew.
        self._merge_some(self._publisher, run.lease, index_prefix, manifest, due)


def new_rebuild(
    index_id: int,
    index_prefix: Path,
    *,
    images_count: int = 0,
    priority: Priority = Priority.NORMAL,
    only_if_changed: bool = False,
) -> NewJob:
    """Return the request of a rebuild; while one is active, all requests are that one.

    With ``only_if_changed``, which is another request, it leaves alone what is one segment already
    of which no row is gone.
    """
    return NewJob(
        index_id=index_id,
        kind=JobKind.REBUILD,
        request={"index_prefix": str(index_prefix), "only_if_changed": only_if_changed},
        priority=priority,
        dedupe_key=f"{JobKind.REBUILD.value}{'-if-changed' if only_if_changed else ''}",
        images_count=images_count,
        runs_again=False,
    )


def _has_changed(manifest: Manifest | None) -> bool:
    """Say whether a rebuild would do more than write the same rows again."""
    return manifest is not None and (len(manifest.segments) > 1 or bool(manifest.tombstones))


def _require_space(index_prefix: Path, manifest: Manifest, segments: frozenset[int]) -> None:
    """Raise StorageError where a merge would fill the disk that others write to as well."""
    needed = sum(
        file.bytes
        for entry in manifest.segments
        if entry.number in segments
        for file in entry.files
    )
    try:
        free = shutil.disk_usage(index_prefix).free
    except OSError as error:
        raise StorageError(f"{str(index_prefix)!r} cannot be looked at: {error}.") from error
    if free < _SPARE * needed:
        raise StorageError(
            f"Merging segments of {str(index_prefix)!r} needs {_SPARE * needed / 1e6:,.0f} MB, but "
            f"only {free / 1e6:,.0f} MB are free; free some space."
        )


def due_segments(manifest: Manifest, policy: MergePolicy) -> frozenset[int]:
    """Return the numbers of the segments that should become one; none when all is well."""
    if not manifest.segments:
        return frozenset()
    main = max(manifest.segments, key=lambda segment: segment.rows)
    deltas = [segment for segment in manifest.segments if segment is not main]
    gone = sum(entry.rows for entry in manifest.tombstones)
    changed = gone + sum(segment.rows for segment in deltas)
    if changed >= policy.rebuild_rows and changed > policy.rebuild_share * main.rows:
        return frozenset(segment.number for segment in manifest.segments)
    if len(deltas) > policy.max_deltas:
        return frozenset(segment.number for segment in _smallest(deltas, policy.max_deltas))
    return frozenset()


def _smallest(deltas: list[SegmentEntry], max_deltas: int) -> list[SegmentEntry]:
    """Return the smaller half, and those that are no larger than all before them together.

    So a row is written again only when it becomes part of a segment about twice as large.
    """
    deltas = sorted(deltas, key=lambda segment: segment.rows)
    count = max(2, max_deltas // 2 + 1)
    while count < len(deltas) and deltas[count].rows <= sum(d.rows for d in deltas[:count]):
        count += 1
    return deltas[:count]
