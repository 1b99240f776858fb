"""Making one segment of several, without the rows that count no longer: a rebuild.

The new segment is built in a directory of its own below the parts of the merge's job, while commits
go on. Only the last step takes the publish lock: it links the files into the index, keeps the
segments that came meanwhile, and removes the rows that were removed meanwhile where they lie now.

Nothing but time is lost when it ends at any point: until the last step nothing names the new files,
and the segments that they replace stay until no kept generation lists them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from imagedex.core.errors import CorruptIndex, LeaseLost, Superseded
from imagedex.core.images import RowLocation
from imagedex.segments import layout
from imagedex.segments._parquet import ImageTable, read_tables
from imagedex.segments.durable import make_directory, storage_errors
from imagedex.segments.generation import OpenSegment, open_segment
from imagedex.segments.integrity import require_intact
from imagedex.segments.interfaces import IvfPolicy, Merge
from imagedex.segments.lock import PublishLock
from imagedex.segments.moved_rows import GONE, MovedRows
from imagedex.segments.published import read_published
from imagedex.segments.records import Manifest, SegmentEntry
from imagedex.segments.tombstones import RowArray, TombstoneFiles, Tombstones
from imagedex.segments.verification import Verification
from imagedex.segments.writing import Author, NewGeneration


class PreparedMerge:
    """A merged segment that is built and not published; see ``imagedex.segments.PreparedMerge``."""

    def __init__(
        self,
        index_prefix: Path,
        merge: Merge,
        *,
        base: Manifest,
        gone: Tombstones,
        staging: Path,
        staged: OpenSegment | None,
        tombstones: TombstoneFiles,
        ivf: IvfPolicy,
        lock: PublishLock,
    ) -> None:
        """Take what was built of which generation; ``staged`` is None when no row was left."""
        self._index_prefix = index_prefix
        self._merge = merge
        self._base = base
        self._gone = gone
        self._staging = staging
        self._staged = staged
        self._tombstones = tombstones
        self._ivf = ivf
        self._lock = lock
        self._opened: OpenSegment | None = None

    def publish(self) -> tuple[Manifest, MovedRows]:
        """Publish a generation with the new segment; return it, and where rows lie now."""
        merge, base = self._merge, self._base
        with self._lock.held():
            now = _current(self._index_prefix)
            merged = _merged(base, merge)
            if now.base_generation != base.base_generation or any(
                entry not in now.segments for entry in merged
            ):
                raise Superseded(
                    f"Segments {sorted(merge.segments)} of generation {base.generation} were "
                    f"merged, but generation {now.generation} no longer has them; merge again."
                )
            _require_fence(now, merge)
            gone = self._tombstones.of(now.tombstones)
            author = Author(
                merge.fence,
                now.model_name,
                now.fingerprint,
                now.dim,
                beside_commits=merge.beside_commits,
            )
            with NewGeneration(self._index_prefix, now, author, self._ivf) as new:
                kept = tuple(entry for entry in now.segments if entry not in merged)
                left = _tombstones_of(kept, gone)
                rows = _new_rows(merged, self._gone)
                number = 0
                if self._staged is not None:
                    taken = new.take_over(self._staging, self._staged.entry)
                    number = taken.number
                    kept += (taken,)
                    left += _carried_over(merged, number, rows, before=self._gone, now=gone)
                    self._opened = replace(self._staged, entry=taken)
                buried = (new.write_tombstones(left),) if left else ()
                manifest = new.publish(kept, buried, only_moves=True)
        return manifest, MovedRows(number, rows)

    def opened(self, entry: SegmentEntry) -> OpenSegment | None:
        """Return the new segment, open already, if this is it."""
        is_it = self._opened is not None and self._opened.entry == entry
        return self._opened if is_it else None


@contextmanager
def prepare_merge(
    index_prefix: Path,
    merge: Merge,
    tombstones: TombstoneFiles,
    ivf: IvfPolicy,
    lock: PublishLock,
    checkpoint: Callable[[], None],
) -> Iterator[PreparedMerge]:
    """Build the merged segment; see ``IndexFiles.prepare_merge``."""
    base = _current(index_prefix)
    _require_fence(base, merge)
    merged = _merged(base, merge)
    if len(merged) != len(merge.segments):
        raise ValueError(
            f"Segments {sorted(merge.segments)} cannot be merged: generation {base.generation} "
            f"has {[entry.number for entry in base.segments]}."
        )
    gone = tombstones.of(base.tombstones)
    staging = index_prefix / layout.staging_name(merge.job_id, merge.fence)
    try:
        remove_staging(index_prefix, merge.job_id, merge.fence)
        checkpoint()
        rows = sum(entry.rows - len(gone.rows_of(entry.number)) for entry in merged)
        staged = None
        if rows:
            make_directory(staging)
            author = Author(merge.fence, base.model_name, base.fingerprint, base.dim)
            images = _live_rows(index_prefix, merged, gone, checkpoint, dim=base.dim)
            with NewGeneration(staging, None, author, ivf) as new:
                entry = new.write_segment(images, rows=rows, job_id=merge.job_id, chunks=())
            # So that it need not be opened while queries wait for the new generation.
            staged = open_segment(staging, entry, Verification(staging), dim=base.dim)
        checkpoint()
        yield PreparedMerge(
            index_prefix,
            merge,
            base=base,
            gone=gone,
            staging=staging,
            staged=staged,
            tombstones=tombstones,
            ivf=ivf,
            lock=lock,
        )
    finally:
        # The names in the index stay; what cannot be deleted here is swept later.
        shutil.rmtree(staging, ignore_errors=True)


def remove_staging(index_prefix: Path, job_id: str, fence: int) -> None:
    """Delete what earlier runs of the same job have built, but nothing of a higher fence.

    What cannot be deleted yet (NFS keeps the directory of a file that is open) is swept later.
    """
    directory = index_prefix / layout.parts_name(job_id)
    with storage_errors("tidy up", directory):
        for path in directory.glob("merge-*"):
            built = layout.fence_of(path.relative_to(index_prefix).as_posix())
            if built is not None and built <= fence:
                shutil.rmtree(path, ignore_errors=True)


def _current(index_prefix: Path) -> Manifest:
    published = read_published(index_prefix)
    if published is None or published.manifest is None:
        raise ValueError(f"There is no index at {str(index_prefix)!r} whose segments to merge.")
    return published.manifest


def _merged(manifest: Manifest, merge: Merge) -> list[SegmentEntry]:
    return [entry for entry in manifest.segments if entry.number in merge.segments]


def _require_fence(current: Manifest, merge: Merge) -> None:
    """Raise LeaseLost when another owner of the same kind has published since."""
    published = current.merge_fence if merge.beside_commits else current.fence
    if merge.fence < published:
        raise LeaseLost(
            f"Fence {merge.fence} may not publish a merge: fence {published} has published "
            "already; the owner was replaced and must stop."
        )


def _live_rows(
    index_prefix: Path,
    entries: list[SegmentEntry],
    gone: Tombstones,
    checkpoint: Callable[[], None],
    *,
    dim: int,
) -> Iterator[ImageTable]:
    """Yield the rows of segments that count, in order, some thousand at a time."""
    for entry in entries:
        counts = np.ones(entry.rows, dtype=bool)
        counts[gone.rows_of(entry.number)] = False
        start = 0
        for images in read_tables(require_intact(index_prefix, entry.parquet)):
            end = start + images.rows
            if end > entry.rows or images.dim != dim:
                raise _other_size(entry, end, images.dim, expected_dim=dim)
            yield images if counts[start:end].all() else images.only(counts[start:end])
            checkpoint()
            start = end
        if start != entry.rows:
            raise _other_size(entry, start, dim, expected_dim=dim)


def _other_size(entry: SegmentEntry, rows: int, dim: int, *, expected_dim: int) -> CorruptIndex:
    return CorruptIndex(
        f"Segment {entry.number} holds {rows} x {dim} or more but its manifest expects "
        f"{entry.rows} x {expected_dim}; restore it from a copy of the index."
    )


def _new_rows(entries: list[SegmentEntry], gone: Tombstones) -> dict[int, RowArray]:
    """Return by segment where each of its rows went: one after the other, those that counted."""
    rows = {}
    start = 0
    for entry in entries:
        counts = np.ones(entry.rows, dtype=bool)
        counts[gone.rows_of(entry.number)] = False
        new = start + np.cumsum(counts, dtype=np.int64) - 1
        rows[entry.number] = np.where(counts, new, GONE)
        start += int(counts.sum())
    return rows


def _carried_over(
    entries: list[SegmentEntry],
    number: int,
    rows: dict[int, RowArray],
    *,
    before: Tombstones,
    now: Tombstones,
) -> list[RowLocation]:
    """Return the rows of the new segment that were removed while it was built, in order."""
    return [
        RowLocation(number, row)
        for entry in entries
        for row in rows[entry.number][
            np.setdiff1d(now.rows_of(entry.number), before.rows_of(entry.number))
        ].tolist()
    ]


def _tombstones_of(entries: tuple[SegmentEntry, ...], gone: Tombstones) -> list[RowLocation]:
    return [
        RowLocation(entry.number, row)
        for entry in entries
        for row in gone.rows_of(entry.number).tolist()
    ]
