"""Is an index sound, and how does it come back when it is not? Examination, repair, snapshots."""

from imagedex.upkeep.doctor import Diagnosis, Doctor
from imagedex.upkeep.repair import Repair
from imagedex.upkeep.snapshots import Snapshots

__all__ = ["Diagnosis", "Doctor", "Repair", "Snapshots"]
