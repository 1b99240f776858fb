"""Putting segments of another model in the place of all that a generation has.

The new segments are built from part files in a directory of their own below the parts of their
job, while commits of the old model go on. Only the last step takes the publish lock: it links the
files into the index and makes a generation of them alone. Until then nothing names them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from imagedex.core.errors import CorruptIndex, LeaseLost
from imagedex.core.images import RowLocation
from imagedex.segments import layout
from imagedex.segments._parquet import ImageTable, read_fingerprint, read_images
from imagedex.segments.durable import make_directory
from imagedex.segments.interfaces import IvfPolicy, PartRows, Replacement
from imagedex.segments.lock import PublishLock
from imagedex.segments.merging import remove_staging
from imagedex.segments.parts import part_path
from imagedex.segments.published import read_published
from imagedex.segments.records import Manifest, SegmentEntry
from imagedex.segments.writing import Author, NewGeneration


class PreparedReplacement:
    """New segments that are built; see ``imagedex.segments.PreparedReplacement``."""

    def __init__(
        self,
        index_prefix: Path,
        replacement: Replacement,
        *,
        staging: Path,
        ivf: IvfPolicy,
        lock: PublishLock,
    ) -> None:
        """Take where they are built and for what."""
        self._index_prefix = index_prefix
        self._replacement = replacement
        self._author = Author(
            replacement.fence,
            replacement.model_name,
            replacement.fingerprint,
            replacement.dim,
            beside_commits=True,
        )
        self._staging = staging
        self._ivf = ivf
        self._lock = lock
        self._staged: list[SegmentEntry] = []

    def add(self, parts: Sequence[PartRows]) -> int:
        """Build a segment of rows of part files, in this order; return its number here."""
        images = (self._rows_of(part) for part in parts)
        rows = sum(len(part.rows) for part in parts)
        job_id = self._replacement.job_id
        make_directory(self._staging)
        with NewGeneration(self._staging, None, self._author, self._ivf) as new:
            entry = new.write_segment(images, rows=rows, job_id=job_id, chunks=())
        self._staged.append(entry)
        return entry.number

    def publish(self, *, expected_generation: int, removed: Sequence[RowLocation]) -> Manifest:
        """Publish a generation of the new segments alone, without the removed rows of them."""
        with self._lock.held():
            current = _current(self._index_prefix)
            self._require_turn(current, expected_generation)
            with NewGeneration(self._index_prefix, current, self._author, self._ivf) as new:
                taken = {
                    entry.number: new.take_over(self._staging, entry) for entry in self._staged
                }
                gone = sorted(RowLocation(taken[row.segment].number, row.row) for row in removed)
                buried = (new.write_tombstones(gone),) if gone else ()
                return new.publish(tuple(taken.values()), buried, begins_anew=True)

    def _rows_of(self, part: PartRows) -> ImageTable:
        path = part_path(self._index_prefix, part.name)
        images, dim = read_images(path), self._replacement.dim
        found = read_fingerprint(path)
        if found != self._replacement.fingerprint or images.dim != dim:
            raise CorruptIndex(
                f"Part file {part.name!r} has {images.dim} numbers a vector of {found!r}, expected "
                f"{dim} of {self._replacement.fingerprint!r}; run its chunk again."
            )
        counts = np.zeros(images.rows, dtype=bool)
        counts[list(part.rows)] = True
        return images if counts.all() else images.only(counts)

    def _require_turn(self, current: Manifest, expected_generation: int) -> None:
        fence = self._replacement.fence
        if fence < current.merge_fence:
            raise LeaseLost(
                f"Fence {fence} may not publish another model: fence {current.merge_fence} has "
                "published already; the owner was replaced and must stop."
            )
        if current.generation != expected_generation:
            raise LeaseLost(
                f"Generation {current.generation} is current but another model's was made to "
                f"follow {expected_generation}; begin again from the current one."
            )


@contextmanager
def prepare_replacement(
    index_prefix: Path, replacement: Replacement, ivf: IvfPolicy, lock: PublishLock
) -> Iterator[PreparedReplacement]:
    """Give what builds the segments; see ``IndexFiles.prepare_replacement``."""
    _current(index_prefix)
    staging = index_prefix / layout.staging_name(replacement.job_id, replacement.fence)
    try:
        remove_staging(index_prefix, replacement.job_id, replacement.fence)
        yield PreparedReplacement(index_prefix, replacement, staging=staging, ivf=ivf, lock=lock)
    finally:
        # The names in the index stay; what cannot be deleted here is swept later.
        shutil.rmtree(staging, ignore_errors=True)


def _current(index_prefix: Path) -> Manifest:
    published = read_published(index_prefix)
    if published is None or published.manifest is None:
        raise ValueError(f"There is no index at {str(index_prefix)!r} to give another model.")
    return published.manifest
