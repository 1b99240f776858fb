"""The stored index: segments, generations, and how one is published after another."""

from imagedex.segments.directory import DirectoryIndexFiles
from imagedex.segments.examination import FilesReport, examine_files
from imagedex.segments.findings import Finding, FindingKind
from imagedex.segments.interfaces import Commit, Hits, IndexFiles, OpenGeneration
from imagedex.segments.live_rows import LiveRows
from imagedex.segments.lock import publish_lock
from imagedex.segments.mending import Mended, mend_faiss_files, mend_pointer
from imagedex.segments.records import (
    FileEntry,
    Manifest,
    Part,
    SegmentEntry,
    TombstoneEntry,
)

__all__ = [
    "Commit",
    "DirectoryIndexFiles",
    "FileEntry",
    "FilesReport",
    "Finding",
    "FindingKind",
    "Hits",
    "IndexFiles",
    "LiveRows",
    "Manifest",
    "Mended",
    "OpenGeneration",
    "Part",
    "SegmentEntry",
    "TombstoneEntry",
    "examine_files",
    "mend_faiss_files",
    "mend_pointer",
    "publish_lock",
]
