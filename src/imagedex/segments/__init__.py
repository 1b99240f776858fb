"""The stored index: segments, generations, and how one is published after another."""

from imagedex.segments.directory import DirectoryIndexFiles
from imagedex.segments.examination import FilesReport, examine_files
from imagedex.segments.filters import ImageFilter
from imagedex.segments.findings import Finding, FindingKind
from imagedex.segments.interfaces import (
    Commit,
    Hits,
    IndexFiles,
    IvfPolicy,
    Merge,
    OpenGeneration,
    PartRows,
    PreparedMerge,
    PreparedReplacement,
    Replacement,
)
from imagedex.segments.live_rows import LiveRows
from imagedex.segments.lock import publish_lock
from imagedex.segments.mending import Mended, mend_faiss_files, mend_pointer
from imagedex.segments.moved_rows import MovedRows
from imagedex.segments.place import place_of, require_place
from imagedex.segments.records import (
    FileEntry,
    FinishedPart,
    ImageBlock,
    Manifest,
    Part,
    SegmentEntry,
    TombstoneEntry,
)
from imagedex.segments.republishing import roll_back
from imagedex.segments.snapshots import Snapshot, SnapshotDirectory

__all__ = [
    "Commit",
    "DirectoryIndexFiles",
    "FileEntry",
    "FilesReport",
    "Finding",
    "FindingKind",
    "FinishedPart",
    "Hits",
    "ImageBlock",
    "ImageFilter",
    "IndexFiles",
    "IvfPolicy",
    "LiveRows",
    "Manifest",
    "Mended",
    "Merge",
    "MovedRows",
    "OpenGeneration",
    "Part",
    "PartRows",
    "PreparedMerge",
    "PreparedReplacement",
    "Replacement",
    "SegmentEntry",
    "Snapshot",
    "SnapshotDirectory",
    "TombstoneEntry",
    "examine_files",
    "mend_faiss_files",
    "mend_pointer",
    "place_of",
    "publish_lock",
    "require_place",
    "roll_back",
]
