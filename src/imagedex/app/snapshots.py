"""Snapshots, wired."""

from __future__ import annotations

from pathlib import Path

from imagedex.app.foundations import Foundations
from imagedex.app.searching import Searching
from imagedex.segments import SnapshotDirectory, publish_lock
from imagedex.upkeep import SnapshotJobs, Snapshots


def snapshot_jobs(base: Foundations, searching: Searching) -> SnapshotJobs:
    """Return the snapshots of all indexes."""

    def snapshots_of(index_prefix: Path) -> Snapshots:
        return Snapshots(
            base.files_of(index_prefix),
            SnapshotDirectory(base.settings.snapshots_of(index_prefix)),
            database=base.database,
            catalog=base.catalog,
            jobs=base.jobs,
            hold_index=publish_lock(index_prefix, term=base.term).held,
            turns=base.turns,
            on_published=searching.refresh_if_served,
        )

    return SnapshotJobs(
        catalog=base.catalog,
        jobs=base.jobs,
        locations=base.locations,
        turns=base.turns,
        snapshots_of=snapshots_of,
        kept=base.settings.snapshots.keep,
    )
