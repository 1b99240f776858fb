"""Indexes whose segments have Faiss files though they are small, so that tests can harm them."""

from __future__ import annotations

from pathlib import Path

from imagedex.segments import DirectoryIndexFiles, FileEntry, IvfPolicy, SegmentEntry

FAISS_FILES = IvfPolicy(flat_min_rows=1)


def files_with_faiss(index_prefix: Path, *, large_bytes: int = 2**26) -> DirectoryIndexFiles:
    """Return the files of an index, to which even small segments bring a Faiss file."""
    return DirectoryIndexFiles(index_prefix, ivf=FAISS_FILES, large_bytes=large_bytes)


def faiss_of(segment: SegmentEntry) -> FileEntry:
    """Return the Faiss file of a segment that has one."""
    assert segment.faiss is not None
    return segment.faiss
