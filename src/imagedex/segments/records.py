"""What a generation is made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from imagedex.core.images import ImageFacts


@dataclass(frozen=True, slots=True)
class FileEntry:
    """An immutable file of the index."""

    name: str  # Below the index prefix, with ``/``.
    bytes: int
    sha256: str  # Hexadecimal.


# Beyond all inner products of unit vectors, and all differences of such.
ANY_NEARNESS = -2.0
ANY_MARGIN = 4.0


@dataclass(frozen=True, slots=True)
class SearchDepth:
    """How deep the inverted lists of a segment are searched for some queries."""

    k: int  # For at most so many results.
    nearness: float  # For queries with at least this inner product with the nearest centroid.
    probes: int  # Lists that are read at most:
    margin: float  # those whose inner products lie at most so far below that of the nearest.
    candidates: int  # Rows of them that are compared exactly.
    recall: float  # Of the true best k, as measured when the lists were made.

    @property
    def at_a_glance(self) -> bool:
        """Whether the lists are those that a query finds near at first sight."""
        return self.nearness > ANY_NEARNESS


@dataclass(frozen=True, slots=True)
class IvfEntry:
    """The inverted lists of a large segment, which can be made again from its vectors."""

    file: FileEntry
    # By rising k, and for each by falling nearness; more results are searched for exactly.
    depths: tuple[SearchDepth, ...]


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A segment as its manifest lists it."""

    number: int  # From 1, never used twice.
    generation: int  # That it came with: tells what a catalog that lags has not seen.
    rows: int
    parquet: FileEntry
    faiss: FileEntry | None  # None for a small one, whose vectors are read into memory.
    job_id: str  # The job that made it, and the chunks of that job which it holds:
    chunks: tuple[int, ...]  # they let the catalog be reconciled after a crash.
    ivf: IvfEntry | None = None  # None where exact search is fast, or alone is right.

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """All its files."""
        made = (self.faiss, self.ivf.file if self.ivf else None)
        return (self.parquet, *(file for file in made if file is not None))


@dataclass(frozen=True, slots=True)
class TombstoneEntry:
    """A file of rows that no longer count (Parquet, columns ``segment`` and ``row``)."""

    generation: int  # That it came with.
    file: FileEntry
    rows: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """One generation: complete, immutable, described by one numbered file."""

    generation: int  # From 1.
    fence: int  # Of the owner whose commit was the last; never falls.
    model_name: str
    fingerprint: str  # Of the embedding model; all vectors of an index share it.
    dim: int
    created_at: datetime
    images: int  # Rows that count: rows of all segments less tombstones.
    next_segment: int
    segments: tuple[SegmentEntry, ...]
    tombstones: tuple[TombstoneEntry, ...]
    # The last generation that did not grow from the one before, but was put in its place; 0 for
    # none. A catalog of an older generation cannot follow step by step and is filled anew.
    base_generation: int = 0
    # Of the last merge that ran beside commits, with a fence of its own; never falls. 0 for none.
    merge_fence: int = 0
    # It was made by a merge: it holds the images of the generation before, elsewhere.
    only_moves: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class ImageBlock:
    """Some rows of a published segment, one after the other."""

    first_row: int
    facts: tuple[ImageFacts, ...]
    vectors: NDArray[np.float32]  # Shape (len(facts), dim), rows of unit length.


@dataclass(frozen=True, slots=True)
class Part:
    """What a chunk leaves on the index's storage until it is committed."""

    facts: tuple[ImageFacts, ...]
    vectors: NDArray[np.float32]  # Shape (len(facts), dim), rows of unit length.
    fingerprint: str  # Of the model that made them; empty in files of older versions.


@dataclass(frozen=True, slots=True)
class FinishedPart:
    """A part file as its name and its metadata tell of it."""

    name: str
    chunk: int
    fence: int  # Of the lease under which its chunk was run.
    fingerprint: str
    outcome: str  # What was given when it was written; empty in files of older versions.
