"""Making good what can be made good from the Parquet files and manifests of an index.

Whatever is put in place of a damaged file is complete before it gets its name, so that a reader
which has the old one open goes on with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imagedex.core.errors import CorruptIndex
from imagedex.segments import layout
from imagedex.segments._faiss import write_flat
from imagedex.segments._parquet import read_vectors
from imagedex.segments.durable import (
    HashingFile,
    create_file,
    storage_errors,
    sync_directory,
    temporary_file,
)
from imagedex.segments.examination import manifests_present
from imagedex.segments.integrity import is_intact, require_intact
from imagedex.segments.pointer import Pointer
from imagedex.segments.records import FileEntry, Manifest, SegmentEntry
from imagedex.segments.republishing import (
    highest_fence,
    highest_generation,
    point_at,
    republish,
)


@dataclass(frozen=True, slots=True)
class Mended:
    """What counts now, and what was done, in sentences."""

    manifest: Manifest | None  # None when nothing could be done.
    actions: tuple[str, ...]


def mend_pointer(index_prefix: Path, *, known_generation: int) -> Mended:
    """Let ``CURRENT`` name the newest generation whose vectors and tombstones are all intact.

    Where a newer one is known to have been, the older one is published again under a new number,
    and the action says so. The caller holds the publish lock. Raises StorageError.

    Parameters
    ----------
    known_generation
        The newest that the catalog knows; 0 for none.
    """
    newest = max(known_generation, highest_generation(index_prefix))
    reasons = []
    for name, manifest in manifests_present(index_prefix):
        if isinstance(manifest, CorruptIndex):
            reasons.append(str(manifest))
            continue
        try:
            _require_rows(index_prefix, manifest)
        except CorruptIndex as error:
            reasons.append(f"Generation {manifest.generation} cannot be used: {error}")
            continue
        if manifest.generation >= newest:
            data = (index_prefix / name).read_bytes()
            point_at(index_prefix, Pointer(name, hashlib.sha256(data).hexdigest()))
            action = f"CURRENT names generation {manifest.generation} again, the newest there is."
            return Mended(manifest, (*reasons, action))
        fence = 1 + highest_fence(index_prefix)
        again = republish(
            index_prefix, manifest, after=None, fence=fence, least_generation=newest + 1
        )
        action = (
            f"Generation {newest} cannot be read. The older generation {manifest.generation} is "
            f"the newest that is intact; it was published again as generation "
            f"{again.generation}. Images that were indexed or removed since then are as they "
            "were before: index them again."
        )
        return Mended(again, (*reasons, action))
    return Mended(
        None, (*reasons, "No generation is intact; restore a snapshot or a copy of the index.")
    )


def mend_faiss_files(index_prefix: Path, manifest: Manifest, damaged: Collection[int]) -> Mended:
    """Make the search structures of some segments again from their Parquet files.

    One that comes out as it was takes its old place. Others get a new name, and a new generation
    lists them. The caller holds the publish lock. Raises CorruptIndex when a Parquet file is
    damaged, StorageError.
    """
    fence = 1 + max(manifest.fence, highest_fence(index_prefix))
    entries = [
        _remake(index_prefix, entry, dim=manifest.dim, fence=fence)
        if entry.number in damaged
        else entry
        for entry in manifest.segments
    ]
    actions = [
        f"The search structure {entry.faiss.name!r} was made again from the Parquet file."
        for entry in entries
        if entry.number in damaged and entry.faiss is not None
    ]
    actions += [
        f"The inverted lists of segment {old.number} were damaged and are left out: it is searched "
        "exactly until they are made again by: imagedex rebuild"
        for old, new in zip(manifest.segments, entries, strict=True)
        if old.ivf is not None and new.ivf is None
    ]
    if tuple(entries) == manifest.segments:
        return Mended(manifest, tuple(actions))
    _sync_segments(index_prefix)
    source = replace(manifest, segments=tuple(entries))
    again = republish(
        index_prefix, source, after=manifest.generation, fence=fence, is_same_line=True
    )
    actions.append(
        f"It is not what it was byte by byte, so generation {again.generation} was published "
        "with it."
    )
    return Mended(again, tuple(actions))


def _remake(index_prefix: Path, entry: SegmentEntry, *, dim: int, fence: int) -> SegmentEntry:
    parquet = require_intact(index_prefix, entry.parquet)

    def write(file: HashingFile) -> None:
        try:
            write_flat(file, read_vectors(parquet), rows=entry.rows, dim=dim)
        except CorruptIndex as error:
            raise CorruptIndex(
                f"Segment {entry.number} is not what its manifest says: {error}"
            ) from error

    if entry.ivf is not None and not is_intact(index_prefix, entry.ivf.file):
        entry = replace(entry, ivf=None)
    if entry.faiss is None:
        return entry
    path = index_prefix / entry.faiss.name
    with storage_errors("write", path), temporary_file(path, write) as (made, written):
        if written.sha256 == entry.faiss.sha256:
            made.replace(path)
            sync_directory(path.parent)
            return entry
    name = layout.faiss_name(entry.number, fence)
    written = create_file(index_prefix / name, write)
    return replace(entry, faiss=FileEntry(name, written.bytes, written.sha256))


def _require_rows(index_prefix: Path, manifest: Manifest) -> None:
    """Raise CorruptIndex unless all that cannot be made again is intact."""
    needed: Sequence[FileEntry] = [
        *(segment.parquet for segment in manifest.segments),
        *(entry.file for entry in manifest.tombstones),
    ]
    for entry in needed:
        require_intact(index_prefix, entry)


def _sync_segments(index_prefix: Path) -> None:
    directory = index_prefix / layout.SEGMENTS
    with storage_errors("flush", directory):
        sync_directory(directory)
