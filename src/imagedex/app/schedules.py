"""What is done at the times of the settings."""

from __future__ import annotations

from imagedex.app.foundations import Foundations
from imagedex.indexing import new_rebuild
from imagedex.jobs import CronTimes, JobKind, NewJob, Priority, Schedule
from imagedex.upkeep import SnapshotJobs


def schedules(base: Foundations, snapshots: SnapshotJobs) -> list[Schedule]:
    """Return the schedules of backups, rebuilds and snapshots that are wanted.

    A shared database is backed up by its own tools.
    """
    settings = base.settings
    wanted = {
        "backup": (settings.backup.schedule, lambda: _backups(base)),
        "rebuild": (settings.indexing.rebuild_schedule, lambda: _rebuilds(base)),
        "snapshot": (settings.snapshots.schedule, snapshots.scheduled),
    }
    if base.database.is_shared:
        del wanted["backup"]
    return [
        Schedule(name, CronTimes(cron, settings.time_zone), requests)
        for name, (cron, requests) in wanted.items()
        if cron
    ]


def _backups(base: Foundations) -> list[NewJob]:
    index = base.catalog.ensure_index(base.settings.effective_index_prefix)
    return [
        NewJob(
            index_id=index.index_id,
            kind=JobKind.BACKUP,
            request={},
            priority=Priority.NORMAL,
            dedupe_key=JobKind.BACKUP.value,
            runs_again=False,
        )
    ]


def _rebuilds(base: Foundations) -> list[NewJob]:
    return [
        new_rebuild(index.index_id, index.index_prefix, only_if_changed=True)
        for index in base.catalog.list_indexes()
        if index.generation > 0
    ]
