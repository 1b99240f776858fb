"""What the stored index is to the rest of Imagedex.

Order of a commit (each step durable before the next): segment and tombstone files, manifest,
its claim to be the successor of the current generation, which makes it count, and ``CURRENT``; the
caller's database transaction follows. A crash between any two steps leaves either the old
generation or the new one, never a mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from imagedex.core.images import ImageFacts, RowLocation
from imagedex.segments.filters import ImageFilter
from imagedex.segments.moved_rows import MovedRows
from imagedex.segments.records import (
    FinishedPart,
    ImageBlock,
    Manifest,
    Part,
    SegmentEntry,
    TombstoneEntry,
)


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
    min_recall: float = 0.99  # At 10, 30 and 100; where it is not reached, search stays exact.
    # Smaller ones have the Parquet file alone, whose vectors are read into memory: adding a few
    # images writes their vectors once.
    flat_min_rows: int = 5_000


@dataclass(frozen=True, slots=True)
class Merge:
    """Segments of the current generation that become one, without the rows that are gone."""

    fence: int
    job_id: str
    segments: frozenset[int]  # Numbers.
    # Commits go on meanwhile, under other fences: this one is held against those of such merges.
    beside_commits: bool = False


class PreparedMerge(Protocol):
    """A merged segment that is built and not published."""

    def publish(self) -> tuple[Manifest, MovedRows]:
        """Publish a generation with it; return the manifest, and where merged rows lie now.

        It follows the generation that is current then, with all that was added and removed since
        the merge began. Raises Superseded when the merged segments are not all there any more, or
        the index went back to an older state meanwhile; LeaseLost when a newer fence has
        published; StorageError. In all cases the current generation is what it was, and after a
        StorageError it may be tried again.
        """
        ...


@dataclass(frozen=True, slots=True)
class Replacement:
    """Vectors of another model that are to take the place of all that an index has."""

    fence: int  # Held against those of merges beside commits, which go on meanwhile.
    job_id: str
    model_name: str
    fingerprint: str
    dim: int


@dataclass(frozen=True, slots=True)
class PartRows:
    """Some rows of a part file."""

    name: str
    rows: Sequence[int]


class PreparedReplacement(Protocol):
    """Segments of another model that are built and not published."""

    def add(self, parts: Sequence[PartRows]) -> int:
        """Build a segment of rows of part files, at least one; return its number.

        The rows lie there in the order of the parts, those of one part in the order of its file.
        Raises CorruptIndex for a part that is missing, damaged or of another model, StorageError.
        """
        ...

    def publish(self, *, expected_generation: int, removed: Sequence[RowLocation]) -> Manifest:
        """Publish a generation that holds the new segments alone; return its manifest.

        ``removed`` names rows by the numbers that ``add`` gave; they count no longer. Raises
        LeaseLost when another generation than the expected one is current or a newer fence has
        published, StorageError; then the current generation is what it was.
        """
        ...


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

    def write_part(self, job_id: str, chunk: int, fence: int, part: Part, outcome: str = "") -> str:
        """Write a part file durably and atomically; return its name below the prefix.

        ``outcome`` is kept with it, so that whoever finds the part knows how its chunk ended.
        """
        ...

    def finished_parts(self, job_id: str) -> list[FinishedPart]:
        """Return the part files of a job, by chunk, those of the newest fence first.

        What is half written, or damaged, is passed over. Raises StorageError.
        """
        ...

    def part_fingerprint(self, name: str) -> str | None:
        """Return which model made a part's vectors, or None when the file is not there.

        Empty for a file that does not say, as those of older versions. Raises CorruptIndex,
        StorageError.
        """
        ...

    def remove_part(self, name: str) -> None:
        """Delete a part file, if it is there. Raises StorageError."""
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
        or the current generation is not the expected one, FingerprintMismatch when the index,
        or a part, holds vectors of another model, StorageError when the storage fails; then the
        current generation is what it was. (But for a storage that fails twice at the very end: then
        the new one may be current, though not sure to outlive a power cut. Whoever goes on looks
        at ``current`` first, as after a crash.) Generations rise, but a number may be left out.
        """
        ...

    def prepare_merge(
        self, merge: Merge, checkpoint: Callable[[], None]
    ) -> AbstractContextManager[PreparedMerge]:
        """Build one segment of several, to be published inside the block.

        This takes its time and no lock: commits may go on. ``checkpoint`` is called between the
        steps and ends it by raising. Whatever was not published leaves nothing behind. Raises
        LeaseLost, StorageError, CorruptIndex when a Parquet file is damaged, ValueError for a
        segment that the current generation has not.
        """
        ...

    def merge(self, merge: Merge) -> Manifest:
        """Publish a generation with one segment in the place of several; return its manifest.

        A search finds the same before and after. The rows get new locations, in the order of
        the segments. It prepares the merge and publishes it, and raises what these do.
        """
        ...

    def prepare_replacement(
        self, replacement: Replacement
    ) -> AbstractContextManager[PreparedReplacement]:
        """Give the index another model, by segments that are built and published in the block.

        Commits may go on until it is published. Whatever was not published leaves nothing
        behind. Raises ValueError when there is no index, StorageError.
        """
        ...

    def remove_parts(self, job_id: str) -> None:
        """Delete all part files of a job. Raises StorageError."""
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

    def sweep(self, *, keep_jobs: Sequence[str] | None, fence: int | None = None) -> int:
        """Delete what no generation needs and return the number of files.

        That is: temporary files, part files of jobs other than ``keep_jobs`` and what their
        merges built (None keeps those of all jobs), files of segments and tombstones that no
        kept manifest lists, and manifests older than the last few. With a ``fence``, nothing that
        was written under a higher one: who was replaced deletes nothing of the new owner's.
        """
        ...

    def heal(self) -> None:
        """Make ``CURRENT`` good where it does not name the current generation.

        A storage that failed has left it behind, or an owner that was replaced has put it back.
        Nothing that is read changes, but it is found sooner. Raises CorruptIndex, StorageError.
        """
        ...

    def seal(self, fence: int) -> Manifest | None:
        """Publish the current generation once more, so that nothing else can follow it.

        Whoever takes the index over does so before anything else: what the former owner was about
        to publish is refused from then on. Returns the new generation's manifest, None while
        nothing was published. Raises LeaseLost when the fence is not above all that have
        published, or when somebody has published meanwhile; CorruptIndex, StorageError.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The best rows for one query vector, best first; equal scores are ordered by path."""

    scores: NDArray[np.float32]  # Shape (n_found,): computed in float64, rounded.
    image_paths: tuple[str, ...]
    places: NDArray[np.int64]  # Shape (n_found, 2): where the vectors lie, for the generation.
    matching: int  # How many images the filter allows, or there are without one.

    def only(self, chosen: Sequence[int]) -> Hits:
        """Return some of them, in the order given."""
        which = np.asarray(chosen, dtype=np.int64)
        paths = tuple(self.image_paths[i] for i in chosen)
        return Hits(self.scores[which], paths, self.places[which], self.matching)

    def followed_by(self, others: Hits) -> Hits:
        """Return these and then others."""
        return Hits(
            np.concatenate([self.scores, others.scores]),
            self.image_paths + others.image_paths,
            np.concatenate([self.places, others.places]),
            self.matching,
        )


class OpenGeneration(Protocol):
    """One generation, opened for searching. Immutable; safe to call from several threads.

    Its files stay readable through it even after they were deleted, for as long as it lives.
    """

    @property
    def manifest(self) -> Manifest:
        """What is open."""
        ...

    def search(
        self,
        vectors: NDArray[np.float32],
        ks: Sequence[int],
        filters: Sequence[ImageFilter | None] | None = None,
    ) -> list[Hits]:
        """Return for each unit vector its best ``k`` rows (fewer when fewer count).

        ``vectors`` is float32 of shape (n, dim), with one ``k`` each, and one filter each if
        there are any; all are answered by one pass, each as if it had been asked alone. What a
        filter does not allow takes no place of what it does. Rows with a tombstone never appear.
        Raises InvalidRequest for a filter that cannot be understood, CorruptIndex, StorageError.
        """
        ...

    def vectors(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of hits, which have their places: float32, shape (n_found, dim)."""
        ...

    def prepare(self, image_filter: ImageFilter) -> None:
        """Find out which images a filter allows, so that a search with it need not.

        Costs up to a second for a million images; what is found is remembered for a while. Raises
        InvalidRequest for a filter that cannot be understood, CorruptIndex, StorageError.
        """
        ...

    def prepare_ids(self) -> None:
        """Make what finds images by their ids, so that nobody waits for it: a second a million."""
        ...

    def path_of(self, image_id: str) -> str | None:
        """Return the path of an image, None when it is not here."""
        ...

    def vector_of(self, image_id: str) -> NDArray[np.float32] | None:
        """Return the vector of an image, float32 of shape (dim,), None when it is not here."""
        ...
