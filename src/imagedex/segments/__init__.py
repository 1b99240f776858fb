"""The stored index: segments, generations, and how one is published after another."""

from imagedex.segments.directory import DirectoryIndexFiles
from imagedex.segments.interfaces import Commit, Hits, IndexFiles, OpenGeneration
from imagedex.segments.records import (
    FileEntry,
    ImageBlock,
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
    "ImageBlock",
    "IndexFiles",
    "Manifest",
    "OpenGeneration",
    "Part",
    "SegmentEntry",
    "TombstoneEntry",
]
