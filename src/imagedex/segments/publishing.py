"""Adding a job's images to an index, and taking rows from it: a commit."""

from __future__ import annotations

from pathlib import Path

from imagedex.core.errors import FingerprintMismatch, LeaseLost
from imagedex.core.fingerprints import ModelIdentity, way_back
from imagedex.core.images import RowLocation
from imagedex.segments.interfaces import Commit, IvfPolicy
from imagedex.segments.parts import read_parts
from imagedex.segments.published import read_published
from imagedex.segments.records import Manifest
from imagedex.segments.tombstones import TombstoneFiles
from imagedex.segments.writing import Author, NewGeneration


def publish_commit(
    index_prefix: Path, commit: Commit, tombstones: TombstoneFiles, ivf: IvfPolicy
) -> Manifest:
    """Publish a commit and return the new generation's manifest; see ``IndexFiles.commit``.

    The caller holds the publish lock. What it costs depends on the rows that the commit adds and
    removes and on the number of segments, not on the rows that these hold.
    """
    published = read_published(index_prefix)
    current = None if published is None else published.manifest
    require_successor(current, fence=commit.fence, expected_generation=commit.expected_generation)
    _require_same_model(commit, current)
    author = Author(commit.fence, commit.model_name, commit.fingerprint, commit.dim)
    removed = _fresh_removals(commit, current, tombstones)
    with NewGeneration(index_prefix, current, author, ivf) as new:
        segments = current.segments if current else ()
        gone = current.tombstones if current else ()
        parts = read_parts(
            index_prefix, commit.parts, fingerprint=commit.fingerprint, dim=commit.dim
        )
        if parts:
            segments += (new.add_segment(parts, job_id=commit.job_id, chunks=commit.chunks),)
        if removed:
            gone += (new.write_tombstones(removed),)
        return new.publish(segments, gone)


def require_successor(current: Manifest | None, *, fence: int, expected_generation: int) -> None:
    """Raise LeaseLost unless this fence may publish, and upon that generation."""
    generation = current.generation if current is not None else 0
    if current is not None and fence < current.fence:
        raise LeaseLost(
            f"Fence {fence} may not publish: fence {current.fence} has published "
            f"generation {current.generation}; the owner was replaced and must stop."
        )
    if expected_generation != generation:
        raise LeaseLost(
            f"Generation {generation} is current but the commit was made for generation "
            f"{expected_generation}; begin again from the current one."
        )


def _require_same_model(commit: Commit, current: Manifest | None) -> None:
    if current is None:
        return
    if (commit.fingerprint, commit.dim) != (current.fingerprint, current.dim):
        stored = ModelIdentity(current.model_name, current.fingerprint)
        used = ModelIdentity(commit.model_name, commit.fingerprint)
        raise FingerprintMismatch(
            f"The index holds vectors of {stored}, {current.dim} numbers each, but the commit "
            f"has those of {used}, {commit.dim} numbers each; {way_back(stored, used)}."
        )


def _fresh_removals(
    commit: Commit, current: Manifest | None, tombstones: TombstoneFiles
) -> list[RowLocation]:
    """Return the rows to remove, in order, without those that are gone already."""
    if not commit.removed:
        return []
    rows = {segment.number: segment.rows for segment in current.segments} if current else {}
    for location in commit.removed:
        if not 0 <= location.row < rows.get(location.segment, 0):
            raise ValueError(f"{location} cannot be removed: no published segment has it.")
    gone = tombstones.of(current.tombstones) if current else set[RowLocation]()
    return sorted(location for location in set(commit.removed) if location not in gone)
