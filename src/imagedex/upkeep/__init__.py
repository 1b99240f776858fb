"""Is an index sound, and how does it come back when it is not? Examination and repair."""

from imagedex.upkeep.doctor import Diagnosis, Doctor

__all__ = ["Diagnosis", "Doctor"]
