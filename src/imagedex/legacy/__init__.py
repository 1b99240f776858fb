"""Old indexes: adopted without embedding anything again, and written back for the old scripts."""

from imagedex.legacy.comparison import AgreementReport, QueryAgreement
from imagedex.legacy.exporting import ExportOptions, ExportReport
from imagedex.legacy.importing import ImportFlow
from imagedex.legacy.records import CompareOptions, ImportOptions, ImportReport
from imagedex.legacy.service import LegacyService

__all__ = [
    "AgreementReport",
    "CompareOptions",
    "ExportOptions",
    "ExportReport",
    "ImportFlow",
    "ImportOptions",
    "ImportReport",
    "LegacyService",
    "QueryAgreement",
]
