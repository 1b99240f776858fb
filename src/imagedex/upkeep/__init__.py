"""Is an index sound, and how does it come back when it is not? Examination and repair."""

from imagedex.upkeep.doctor import Diagnosis, Doctor
from imagedex.upkeep.repair import Repair

__all__ = ["Diagnosis", "Doctor", "Repair"]
