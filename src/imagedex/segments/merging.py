"""Making one segment of several, without the rows that count no longer: a rebuild.

Nothing but time is lost when it ends at any point: until the last step nothing names the new files,
and the segments that they replace stay until no kept generation lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imagedex.core.errors import CorruptIndex
from imagedex.core.images import RowLocation
from imagedex.segments._parquet import ImageTable, read_tables
from imagedex.segments.integrity import require_intact
from imagedex.segments.interfaces import IvfPolicy, Merge
from imagedex.segments.lock import PublishLock
from imagedex.segments.published import read_published
from imagedex.segments.publishing import require_successor
from imagedex.segments.records import Manifest, SegmentEntry
from imagedex.segments.tombstones import TombstoneFiles, Tombstones
from imagedex.segments.writing import Author, NewGeneration


def publish_merge(
    index_prefix: Path,
    merge: Merge,
    tombstones: TombstoneFiles,
    ivf: IvfPolicy,
    lock: PublishLock,
) -> Manifest:
    """Publish a merge and return the new generation's manifest; see ``IndexFiles.merge``.

    The lock is taken for the last step only: reading and writing can take minutes.
    """
    current = _current(index_prefix, merge)
    merged = [entry for entry in current.segments if entry.number in merge.segments]
    if len(merged) != len(merge.segments):
        raise ValueError(
            f"Segments {sorted(merge.segments)} cannot be merged: generation {current.generation} "
            f"has {[entry.number for entry in current.segments]}."
        )
    gone = tombstones.of(current.tombstones)
    author = Author(merge.fence, current.model_name, current.fingerprint, current.dim)
    with NewGeneration(index_prefix, current, author, ivf) as new:
        kept = tuple(entry for entry in current.segments if entry not in merged)
        rows = sum(entry.rows - len(gone.rows_of(entry.number)) for entry in merged)
        if rows:
            images = _live_rows(index_prefix, merged, gone, dim=current.dim)
            kept += (new.write_segment(images, rows=rows, job_id=merge.job_id, chunks=()),)
        left = _tombstones_of(kept, gone)
        buried = (new.write_tombstones(left),) if left else ()
        with lock.held():
            _current(index_prefix, merge)
            return new.publish(kept, buried)


def _current(index_prefix: Path, merge: Merge) -> Manifest:
    published = read_published(index_prefix)
    current = None if published is None else published.manifest
    require_successor(current, fence=merge.fence, expected_generation=merge.expected_generation)
    if current is None:
        raise ValueError(f"There is no index at {str(index_prefix)!r} whose segments to merge.")
    return current


def _live_rows(
    index_prefix: Path, entries: list[SegmentEntry], gone: Tombstones, *, dim: int
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
            start = end
        if start != entry.rows:
            raise _other_size(entry, start, dim, expected_dim=dim)


def _other_size(entry: SegmentEntry, rows: int, dim: int, *, expected_dim: int) -> CorruptIndex:
    return CorruptIndex(
        f"Segment {entry.number} holds {rows} x {dim} or more but its manifest expects "
        f"{entry.rows} x {expected_dim}; restore it from a copy of the index."
    )


def _tombstones_of(entries: tuple[SegmentEntry, ...], gone: Tombstones) -> list[RowLocation]:
    return [
        RowLocation(entry.number, row)
        for entry in entries
        for row in gone.rows_of(entry.number).tolist()
    ]
