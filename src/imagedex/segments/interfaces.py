"""What the stored index is to the rest of Imagedex.

Order of a commit (each step durable before the next): segment and tombstone files, manifest,
``CURRENT``; the caller's database transaction follows. A crash between any two steps leaves
either the old generation or the new one, never a mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imagedex.core.images import ImageFacts, RowLocation
from imagedex.segments.records import ImageBlock, Manifest, Part, SegmentEntry, TombstoneEntry


@dataclass(frozen=True, slots=True)
class Commit:
    """What a new generation adds to and takes from the current one."""

    expected_generation: int  # The current one (0 for none), which ``removed`` was made for.
    fence: int  # The caller's; a commit below the current manifest's is refused.
    model_name: str
    fingerprint: str
    dim: int
    job_id: str
    chunks: tuple[int, ...]
    parts: tuple[str, ...]  # Names of part files, whose rows become one segment, in order.
    removed: tuple[RowLocation, ...]  # Rows of published segments that count no longer.


@dataclass(frozen=True, slots=True)
class IvfPolicy:
    """Which files a segment gets for searching, by its size."""

    min_rows: int = 50_000  # From here on inverted lists: faster, and not quite exact.
    min_recall: float = 0.99  # At 10 and at 100; where it is not reached, search stays exact.
    # Smaller ones have the Parquet file alone, whose vectors are read into memory: adding a few
    # images writes their vectors once.
    flat_min_rows: int = 5_000


@dataclass(frozen=True, slots=True)
class Merge:
    """Segments of the current generation that become one, without the rows that are gone."""

    expected_generation: int  # The current one.
    fence: int
    job_id: str
    segments: frozenset[int]  # Numbers.


class IndexFiles(Protocol):
    """The files below one index prefix. Safe to call from several threads and processes."""

    @property
    def index_prefix(self) -> Path:
        """The directory."""
        ...

    def current(self) -> Manifest | None:
        """Return the current generation's manifest, or None while there is none.

        Raises CorruptIndex when the files contradict each other, StorageError when they
        cannot be read.
        """
        ...

    def write_part(self, job_id: str, chunk: int, fence: int, part: Part) -> str:
        """Write a part file durably and atomically; return its name below the prefix."""
        ...

    def has_part(self, name: str) -> bool:
        """Say whether a part file is there."""
        ...

    def read_part_paths(self, name: str) -> list[str]:
        """Return the image paths of a part file, in row order."""
        ...

    def read_part_facts(self, name: str) -> list[ImageFacts]:
        """Return what a part file records of its images, in row order."""
        ...

    def read_rows(self, name: str, rows: Sequence[int]) -> Part:
        """Return some rows of a part file or of a segment's Parquet file, in the order given.

        Costs little more than those rows. Raises CorruptIndex (also when the file, or a row, is
        not there), StorageError.
        """
        ...

    def commit(self, commit: Commit) -> Manifest:
        """Publish a new generation and return its manifest.

        ``parts`` may be empty (only removals). Raises LeaseLost when a newer fence has published
        or the current generation is not the expected one, FingerprintMismatch when the index
        holds vectors of another model, StorageError when the storage fails; then the current
        generation is what it was. Generations rise, but a number may be left out.
        """
        ...

    def merge(self, merge: Merge) -> Manifest:
        """Publish a generation with one segment in the place of several; return its manifest.

        A search finds the same before and after. The rows get new locations, in the order of
        the segments. Raises LeaseLost and StorageError as ``commit`` does, CorruptIndex when a
        Parquet file is damaged, ValueError for a segment that the current generation has not.
        """
        ...

    def read_facts(self, segment: SegmentEntry) -> Iterator[tuple[RowLocation, ImageFacts]]:
        """Yield what a published segment records of its images, in row order."""
        ...

    def read_images(self, segment: SegmentEntry) -> Iterator[ImageBlock]:
        """Yield all images of a published segment with their vectors, in row order."""
        ...

    def read_tombstones(self, tombstones: Sequence[TombstoneEntry]) -> set[RowLocation]:
        """Return the rows that no longer count, according to these files."""
        ...

    def open(self, manifest: Manifest, previous: OpenGeneration | None) -> OpenGeneration:
        """Open a generation for searching; segments that ``previous`` holds are shared with it."""
        ...

    def verify(self, manifest: Manifest, *, should_stop: Callable[[], bool]) -> tuple[str, ...]:
        """Compare with their checksums the files of a generation that ``open`` did not.

        Those are the large ones, each once; it takes seconds a gigabyte. Returns what is wrong,
        a sentence for each damaged file. The next ``open`` does not share a segment whose vectors
        are damaged, but makes them good from the Parquet file or raises CorruptIndex. Raises
        StorageError; returns early, with nothing, when ``should_stop()`` is true.
        """
        ...

    def sweep(self, *, keep_jobs: Sequence[str]) -> int:
        """Delete what no generation needs and return the number of files.

        That is: temporary files, part files of jobs other than ``keep_jobs``, files of
        segments and tombstones that no kept manifest lists, and manifests older than the
        last few. Only the holder of the index's fence calls this, while it commits nothing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Hits:
    """The best rows for one query vector, best first; equal scores are ordered by path."""

    scores: NDArray[np.float32]  # Shape (n_found,): computed in float64, rounded.
    image_paths: tuple[str, ...]


class OpenGeneration(Protocol):
    """One generation, opened for searching. Immutable; safe to call from several threads.

    Its files stay readable through it even after they were deleted, for as long as it lives.
    """

    @property
    def manifest(self) -> Manifest:
        """What is open."""
        ...

    def search(self, vectors: NDArray[np.float32], ks: Sequence[int]) -> list[Hits]:
        """Return for each unit vector its best ``k`` rows (fewer when the index is smaller).

        ``vectors`` is float32 of shape (n, dim), with one ``k`` each; all are answered by one
        pass, each as if it had been asked alone. Rows with a tombstone never appear.
        """
        ...
