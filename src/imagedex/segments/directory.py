"""The files of an index in a directory, on a local disk or a share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from imagedex.core.errors import CorruptIndex
from imagedex.core.images import ImageFacts, RowLocation
from imagedex.segments import _parquet, layout
from imagedex.segments.durable import make_directory, storage_errors
from imagedex.segments.generation import DirectoryGeneration, OpenSegment, open_segment
from imagedex.segments.interfaces import (
    Commit,
    IvfPolicy,
    Merge,
    OpenGeneration,
    PreparedReplacement,
    Replacement,
)
from imagedex.segments.lock import forget_locks, publish_lock
from imagedex.segments.merging import PreparedMerge, prepare_merge
from imagedex.segments.parts import finished_parts, part_path, remove_parts, write_part
from imagedex.segments.pointer import read_pointer
from imagedex.segments.published import Published, heal, read_published
from imagedex.segments.publishing import publish_commit
from imagedex.segments.records import (
    FinishedPart,
    ImageBlock,
    Manifest,
    Part,
    SegmentEntry,
    TombstoneEntry,
)
from imagedex.segments.replacing import prepare_replacement
from imagedex.segments.republishing import seal
from imagedex.segments.sweeping import sweep
from imagedex.segments.tombstones import TombstoneFiles, Tombstones, add_tombstones
from imagedex.segments.verification import LARGE_BYTES, Interrupted, Verification


class DirectoryIndexFiles:
    """``IndexFiles`` in a directory. Safe to call from several threads and processes.

    The directory need not exist before something is written. Its file system must have hard
    links, atomic renames and ``flock``, as local ones and NFS do.
    """

    def __init__(
        self,
        index_prefix: Path,
        *,
        lock_wait_seconds: float = 30.0,
        ivf: IvfPolicy = IvfPolicy(),  # noqa: B008 - It is immutable.
        large_bytes: int = LARGE_BYTES,
        term: Callable[[], int] = lambda: 0,
    ) -> None:
        """Take the directory, how long to wait for its lock, and when to make inverted lists.

        Files of ``large_bytes`` and more are opened before they are compared with their checksums.
        ``term`` says in which term this process publishes, where owners take over from each other.
        """
        self._index_prefix = index_prefix
        self._lock = publish_lock(index_prefix, term=term, wait_seconds=lock_wait_seconds)
        self._term = term
        self._tombstones = TombstoneFiles(index_prefix)
        self._published: Published | None = None
        self._ivf = ivf
        self._prepared: PreparedMerge | None = None
        self._verification = Verification(index_prefix, large_bytes=large_bytes)

    @property
    def index_prefix(self) -> Path:
        """The directory."""
        return self._index_prefix

    def current(self) -> Manifest | None:
        """Return the current generation's manifest, or None while there is none."""
        self._published = published = read_published(self._index_prefix, self._published)
        return None if published is None else published.manifest

    def write_part(self, job_id: str, chunk: int, fence: int, part: Part, outcome: str = "") -> str:
        """Write a part file durably and atomically; return its name below the prefix."""
        return write_part(self._index_prefix, job_id, chunk, fence, part, outcome)

    def finished_parts(self, job_id: str) -> list[FinishedPart]:
        """Return the part files of a job, by chunk, those of the newest fence first."""
        return finished_parts(self._index_prefix, job_id)

    def part_fingerprint(self, name: str) -> str | None:
        """Return which model made a part's vectors, or None when the file is not there."""
        path = part_path(self._index_prefix, name)
        with storage_errors("look for", path):
            if not path.is_file():
                return None
        return _parquet.read_fingerprint(path)

    def remove_part(self, name: str) -> None:
        """Delete a part file, if it is there. Raises StorageError."""
        path = part_path(self._index_prefix, name)
        with storage_errors("delete", path):
            path.unlink(missing_ok=True)

    def read_part_facts(self, name: str) -> list[ImageFacts]:
        """Return what a part file records of its images, in row order."""
        return list(_parquet.read_facts(part_path(self._index_prefix, name)))

    def read_rows(self, name: str, rows: Sequence[int]) -> Part:
        """Return some rows of a part file or of a segment's Parquet file, in the order given.

        Raises ValueError for a name of another kind, CorruptIndex, StorageError.
        """
        if layout.number_of_segment(name) is None or not name.endswith(".parquet"):
            return _parquet.read_rows(part_path(self._index_prefix, name), rows)
        return _parquet.read_rows(self._index_prefix / name, rows)

    def commit(self, commit: Commit) -> Manifest:
        """Publish a new generation and return its manifest; see ``IndexFiles.commit``.

        Raises ValueError when the parts hold an image twice or a removed row does not exist,
        CorruptIndex when a part is damaged, StorageError also when the lock stays taken.
        """
        if commit.expected_generation == 0:
            # Any later one has a directory; where it is missing, a share is not mounted, and
            # a new index must not begin in its place.
            make_directory(self._index_prefix)
        with self._lock.held():
            return publish_commit(self._index_prefix, commit, self._tombstones, self._ivf)

    @contextmanager
    def prepare_merge(
        self, merge: Merge, checkpoint: Callable[[], None]
    ) -> Iterator[PreparedMerge]:
        """Build one segment of several; see ``IndexFiles.prepare_merge``."""
        with prepare_merge(
            self._index_prefix, merge, self._tombstones, self._ivf, self._lock, checkpoint
        ) as prepared:
            self._prepared = prepared
            try:
                yield prepared
            finally:
                self._prepared = None

    def merge(self, merge: Merge) -> Manifest:
        """Publish one segment in the place of several; see ``IndexFiles.merge``."""
        with self.prepare_merge(merge, lambda: None) as prepared:
            return prepared.publish()[0]

    def prepare_replacement(
        self, replacement: Replacement
    ) -> AbstractContextManager[PreparedReplacement]:
        """Give the index another model; see ``IndexFiles.prepare_replacement``."""
        return prepare_replacement(self._index_prefix, replacement, self._ivf, self._lock)

    def remove_parts(self, job_id: str) -> None:
        """Delete all part files of a job. Raises StorageError."""
        remove_parts(self._index_prefix, job_id)

    def read_facts(self, segment: SegmentEntry) -> Iterator[tuple[RowLocation, ImageFacts]]:
        """Yield what a published segment records of its images, in row order."""
        path = self._index_prefix / segment.parquet.name
        rows = 0
        for row, facts in enumerate(_parquet.read_facts(path)):
            yield RowLocation(segment.number, row), facts
            rows = row + 1
        _require_rows(path, rows, segment)

    def read_images(self, segment: SegmentEntry) -> Iterator[ImageBlock]:
        """Yield all images of a published segment with their vectors, in row order."""
        path = self._index_prefix / segment.parquet.name
        rows = 0
        for facts, vectors in _parquet.read_blocks(path):
            yield ImageBlock(rows, tuple(facts), vectors)
            rows += len(facts)
        _require_rows(path, rows, segment)

    def read_tombstones(self, tombstones: Sequence[TombstoneEntry]) -> set[RowLocation]:
        """Return the rows that no longer count, according to these files."""
        return add_tombstones(self._index_prefix, Tombstones({}), tombstones).locations()

    def open(self, manifest: Manifest, previous: OpenGeneration | None) -> DirectoryGeneration:
        """Open a generation for searching; segments that ``previous`` holds are shared with it.

        One that was merged a moment ago is open already. The files of each other segment are
        compared with their checksums, large ones with their size alone until ``verify``. Vectors
        and inverted lists are mapped from their files, paths are read. Raises CorruptIndex,
        StorageError.
        """
        known = previous if isinstance(previous, DirectoryGeneration) else None
        prepared = self._prepared
        segments = tuple(
            (self._shared(known, entry) if known is not None else None)
            or (prepared.opened(entry) if prepared is not None else None)
            or open_segment(self._index_prefix, entry, self._verification, dim=manifest.dim)
            for entry in manifest.segments
        )
        return DirectoryGeneration(manifest, segments, self._tombstones.of(manifest.tombstones))

    def _shared(self, known: DirectoryGeneration, entry: SegmentEntry) -> OpenSegment | None:
        segment = known.segment(entry)
        # Vectors that turned out to be damaged are opened anew, to be made good. Of a Parquet
        # file all that is needed was read, page by page against its checksums.
        is_damaged = entry.faiss is not None and self._verification.is_damaged(entry.faiss)
        is_usable = segment is not None and (segment.is_made_good or not is_damaged)
        return segment if is_usable else None

    def verify(self, manifest: Manifest, *, should_stop: Callable[[], bool]) -> tuple[str, ...]:
        """Compare what ``open`` did not with its checksums; see ``IndexFiles.verify``."""
        try:
            return self._verification.verify(manifest, should_stop=should_stop)
        except Interrupted:
            return ()

    def sweep(self, *, keep_jobs: Sequence[str] | None, fence: int | None = None) -> int:
        """Delete what no generation needs and return the number of files."""
        if not self._index_prefix.is_dir():
            return 0
        with self._lock.held():
            keep = None if keep_jobs is None else frozenset(keep_jobs)
            return sweep(self._index_prefix, self.current, keep, fence=fence)

    def heal(self) -> None:
        """Let ``CURRENT`` name the current generation; see ``IndexFiles.heal``."""
        self.current()
        published = self._published
        if published is not None and published.pointer != read_pointer(self._index_prefix):
            with self._lock.held():
                heal(self._index_prefix)

    def seal(self, fence: int) -> Manifest | None:
        """Publish the current generation once more; see ``IndexFiles.seal``."""
        if self.current() is None:
            return None
        with self._lock.held():
            manifest = seal(self._index_prefix, fence=fence)
            forget_locks(self._index_prefix, before=self._term())
        return manifest


def _require_rows(path: Path, rows: int, segment: SegmentEntry) -> None:
    if rows != segment.rows:
        raise CorruptIndex(
            f"The file {str(path)!r} has {rows} rows but its manifest expects "
            f"{segment.rows}; restore it from a copy of the index."
        )
