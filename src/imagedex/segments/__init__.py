"""The stored index: segments, generations, and how one is published after another."""

from imagedex.segments.directory import DirectoryIndexFiles
from imagedex.segments.interfaces import Commit, Hits, IndexFiles, IvfPolicy, Merge, OpenGeneration
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
    "Hits",
    "IndexFiles",
    "IvfPolicy",
    "Manifest",
    "Merge",
    "OpenGeneration",
    "Part",
    "SegmentEntry",
    "TombstoneEntry",
]
