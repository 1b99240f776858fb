"""Old indexes: adopted without embedding anything again, and written back for the old scripts."""

from imagedex.legacy.exporting import ExportOptions, ExportReport
from imagedex.legacy.importing import ImportFlow
from imagedex.legacy.records import ImportOptions, ImportReport
from imagedex.legacy.service import LegacyService

__all__ = [
    "ExportOptions",
    "ExportReport",
    "ImportFlow",
    "ImportOptions",
    "ImportReport",
    "LegacyService",
]
