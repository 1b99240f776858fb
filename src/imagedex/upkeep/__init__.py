"""Is an index sound, and how does it come back when it is not? Doctor, snapshots, backups."""

from imagedex.upkeep.backups import DatabaseBackups
from imagedex.upkeep.doctor import Diagnosis, Doctor
from imagedex.upkeep.interfaces import SnapshotRequests
from imagedex.upkeep.repair import Repair
from imagedex.upkeep.snapshot_jobs import SnapshotJobs
from imagedex.upkeep.snapshots import Snapshots

__all__ = [
    "DatabaseBackups",
    "Diagnosis",
    "Doctor",
    "Repair",
    "SnapshotJobs",
    "SnapshotRequests",
    "Snapshots",
]
