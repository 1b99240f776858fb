"""Writing the files of a new generation, and making it the current one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import structlog

from imagedex.core.errors import LeaseLost, Superseded
from imagedex.core.images import RowLocation
from imagedex.core.times import utc_now
from imagedex.segments import layout
from imagedex.segments._faiss import FaissFile, write_flat
from imagedex.segments._faiss_ivf import IvfFile
from imagedex.segments._parquet import (
    ImageTable,
    read_vectors,
    write_tables,
    write_tombstones,
)
from imagedex.segments.durable import (
    WriteContent,
    create_file,
    make_directory,
    replace_file,
    storage_errors,
    sync_directory,
)
from imagedex.segments.integrity import described
from imagedex.segments.interfaces import IvfPolicy
from imagedex.segments.ivf_tuning import tune
from imagedex.segments.manifest_json import encode_manifest
from imagedex.segments.parts import StoredPart
from imagedex.segments.pointer import NOTHING_PUBLISHED, Pointer, read_pointer
from imagedex.segments.records import FileEntry, IvfEntry, Manifest, SegmentEntry, TombstoneEntry
from imagedex.segments.succession import may_be_claimed, require_last, succeed
from imagedex.segments.tombstones import to_arrays

_TUNED_FOR = (10, 30, 100)  # Numbers of results.

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Author:
    """Who makes a generation, and of which model it is."""

    fence: int
    model_name: str
    fingerprint: str
    dim: int
    beside_commits: bool = False  # Then the fence is not compared with those of commits.


class NewGeneration:
    """The generation that follows ``current``. Is written file by file, then published or dropped.

    Until it is published nothing names its files. Used as a context manager it drops them when
    the block fails.
    """

    def __init__(
        self, index_prefix: Path, current: Manifest | None, author: Author, ivf: IvfPolicy
    ) -> None:
        """Make the index's directories where they are missing, and take a number."""
        self._index_prefix = index_prefix
        self._current = current
        self._author = author
        self._ivf = ivf
        self._before = current.generation if current is not None else 0
        _ensure_pointer(index_prefix)
        self._manifest: str | None = None  # The name, once it is there.
        self._created: list[Path] = []
        self.number = self._free_generation()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is not None:
            # Whatever it was, nothing names these files, and a full disk needs the space.
            self._discard()

    def write_segment(
        self, images: Iterable[ImageTable], *, rows: int, job_id: str, chunks: tuple[int, ...]
    ) -> SegmentEntry:
        """Write the files of a segment with the rows of all these tables, ``rows`` in all.

        The tables are taken one by one, so that memory need not hold the segment. What is
        searched is made from the Parquet file that was written, and so holds what it holds.
        """
        author = self._author
        number = self._free_segment()
        metadata = {
            "segment": str(number),
            "generation": str(self.number),
            "model_name": author.model_name,
            "fingerprint": author.fingerprint,
            "dim": str(author.dim),
            "job_id": job_id,
            "chunks": ",".join(map(str, chunks)),
        }
        parquet = self._create(
            layout.parquet_name(number, author.fence),
            lambda file: write_tables(file, images, metadata, dim=author.dim),
        )
        return self._completed(number, parquet, rows=rows, job_id=job_id, chunks=chunks)

    def add_segment(
        self, parts: Sequence[StoredPart], *, job_id: str, chunks: tuple[int, ...]
    ) -> SegmentEntry:
        """Make a segment of all that parts hold, at least one.

        The file of a single part becomes that of the segment as it is: it holds what it would
        hold if it were written again, but for the numbers of segment and generation.
        """
        rows = sum(part.images.rows for part in parts)
        if len(parts) > 1:
            tables = (part.images for part in parts)
            return self.write_segment(tables, rows=rows, job_id=job_id, chunks=chunks)
        number = self._free_segment()
        path, name = parts[0].path, layout.parquet_name(number, self._author.fence)
        with storage_errors("link", path):
            parquet = self._link(path, described(path, name))
        return self._completed(number, parquet, rows=rows, job_id=job_id, chunks=chunks)

    def _completed(
        self,
        number: int,
        parquet: FileEntry,
        *,
        rows: int,
        job_id: str,
        chunks: tuple[int, ...],
    ) -> SegmentEntry:
        """Write what a segment is searched by, beside its Parquet file."""
        faiss = self._flat_file(number, parquet, rows)
        entry = SegmentEntry(
            number=number,
            generation=self.number,
            rows=rows,
            parquet=parquet,
            faiss=faiss,
            job_id=job_id,
            chunks=chunks,
            ivf=self._inverted_lists(number, faiss, rows),
        )
        self._sync(layout.SEGMENTS)
        return entry

    def take_over(self, other: Path, entry: SegmentEntry) -> SegmentEntry:
        """Link the files of a segment of another directory into the index, under a new number.

        The metadata inside its Parquet file keep the number that it had there. Raises Superseded
        when the files are gone, since then they were swept.
        """
        number, fence = self._free_segment(), self._author.fence

        def taken(file: FileEntry, name: str) -> FileEntry:
            try:
                return self._link(other / file.name, replace(file, name=name))
            except FileNotFoundError as error:
                raise Superseded(
                    f"The file {file.name!r} below {str(other)!r} was swept before it was "
                    "published; merge again."
                ) from error

        with storage_errors("link", other):
            parquet = taken(entry.parquet, layout.parquet_name(number, fence))
            faiss = entry.faiss and taken(entry.faiss, layout.faiss_name(number, fence))
            ivf = entry.ivf and replace(
                entry.ivf, file=taken(entry.ivf.file, layout.ivf_name(number, fence))
            )
        self._sync(layout.SEGMENTS)
        return replace(
            entry, number=number, generation=self.number, parquet=parquet, faiss=faiss, ivf=ivf
        )

    def _link(self, source: Path, file: FileEntry) -> FileEntry:
        target = self._index_prefix / file.name
        os.link(source, target)
        self._created.append(target)
        return file

    def write_tombstones(self, removed: Sequence[RowLocation]) -> TombstoneEntry:
        """Write a file of tombstones; ``removed`` rises."""
        segments, rows = to_arrays(removed)
        file = self._create(
            layout.tombstone_name(self.number, self._author.fence),
            lambda file: write_tombstones(file, segments, rows),
        )
        self._sync(layout.TOMBSTONES)
        return TombstoneEntry(generation=self.number, file=file, rows=len(removed))

    def publish(
        self,
        segments: tuple[SegmentEntry, ...],
        tombstones: tuple[TombstoneEntry, ...],
        *,
        only_moves: bool = False,
        begins_anew: bool = False,
    ) -> Manifest:
        """Make it current with these segments and tombstones, and return its manifest.

        ``only_moves`` says that it holds the same images as the current generation, ``begins_anew``
        that it has none of its segments, so that a catalog which lags is filled anew.

        The caller holds the publish lock. Raises LeaseLost when another owner has published or
        swept, and StorageError; then the current generation is what it was, unless storage failed
        twice in the last step: then it may be the new one (see ``succession.succeed``).
        """
        current, author = self._current, self._author
        before_merge_fence = current.merge_fence if current else 0
        base_generation = current.base_generation if current else 0
        now = utc_now()
        numbers = [segment.number for segment in segments]
        manifest = Manifest(
            generation=self.number,
            fence=current.fence if current and author.beside_commits else author.fence,
            model_name=author.model_name,
            fingerprint=author.fingerprint,
            dim=author.dim,
            # As precise as it is written, so that it equals what will be read.
            created_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            images=sum(s.rows for s in segments) - sum(t.rows for t in tombstones),
            next_segment=1 + max([*numbers, current.next_segment - 1 if current else 0]),
            segments=segments,
            tombstones=tombstones,
            base_generation=self.number if begins_anew else base_generation,
            merge_fence=author.fence if author.beside_commits else before_merge_fence,
            only_moves=only_moves,
        )
        self._require_unswept()
        data = encode_manifest(manifest)
        name = layout.manifest_name(manifest.generation, author.fence)
        self._create(name, lambda file: file.write(data))
        self._manifest = name
        self._sync(layout.MANIFESTS)
        self._make_current(Pointer(manifest=name, sha256=hashlib.sha256(data).hexdigest()))
        return manifest

    def _flat_file(self, number: int, parquet: FileEntry, rows: int) -> FileEntry | None:
        """Write the vectors as they are searched, of a segment that is not small."""
        if rows < min(self._ivf.flat_min_rows, self._ivf.min_rows):
            return None
        vectors = read_vectors(self._index_prefix / parquet.name)
        return self._create(
            layout.faiss_name(number, self._author.fence),
            lambda file: write_flat(file, vectors, rows=rows, dim=self._author.dim),
        )

    def _inverted_lists(self, number: int, faiss: FileEntry | None, rows: int) -> IvfEntry | None:
        """Write the inverted lists of a large segment, if they are good enough."""
        if faiss is None or rows < self._ivf.min_rows:
            return None
        flat = FaissFile.open(self._index_prefix / faiss.name, rows=rows, dim=self._author.dim)
        lists = IvfFile.build(flat)
        tuning = tune(lists, flat, ks=_TUNED_FOR, recall=self._ivf.min_recall)
        if not tuning.depths:
            _log.warning(
                "inverted_lists_dropped",
                segment=number,
                rows=rows,
                recall=round(tuning.recall, 4),
                wanted=self._ivf.min_recall,
            )
            return None
        _log.info("inverted_lists_made", segment=number, rows=rows, recall=tuning.recall)
        name = layout.ivf_name(number, self._author.fence)
        return IvfEntry(self._create(name, lists.write_to), tuning.depths)

    def _free_generation(self) -> int:
        """Return a generation that has no files, not even some that a crash left over."""
        manifests = map(layout.generation_of_manifest, self._names_in(layout.MANIFESTS))
        tombstones = map(layout.generation_of_tombstones, self._names_in(layout.TOMBSTONES))
        taken = (number for number in (*manifests, *tombstones) if number is not None)
        return 1 + max(taken, default=self._current.generation if self._current else 0)

    def _free_segment(self) -> int:
        """Return a number that no segment has, not even one that a crash left over."""
        least = self._current.next_segment if self._current else 1
        taken = map(layout.number_of_segment, self._names_in(layout.SEGMENTS))
        return max(least, 1 + max((number for number in taken if number is not None), default=0))

    def _names_in(self, folder: str) -> list[str]:
        directory = self._index_prefix / folder
        with storage_errors("list", directory):
            return [f"{folder}/{path.name}" for path in directory.iterdir()]

    def _create(self, name: str, write: WriteContent) -> FileEntry:
        path = self._index_prefix / name
        written = create_file(path, write)
        self._created.append(path)
        return FileEntry(name=name, bytes=written.bytes, sha256=written.sha256)

    def _sync(self, folder: str) -> None:
        with storage_errors("flush", self._index_prefix / folder):
            sync_directory(self._index_prefix / folder)

    def _require_unswept(self) -> None:
        """Files that were written before the lock was taken may have been swept by another."""
        for path in self._created:
            with storage_errors("look for", path):
                if not path.is_file():
                    raise LeaseLost(
                        f"The file {str(path)!r} was swept before it was published: another "
                        "owner has taken over; let it go on."
                    )

    def _make_current(self, after: Pointer) -> None:
        require_last(self._index_prefix, self._before)
        succeed(self._index_prefix, after, before=self._before)

    def _discard(self) -> None:
        if self._manifest is not None and may_be_claimed(
            self._index_prefix, self._manifest, before=self._before
        ):
            return  # It is published, whatever went wrong afterwards.
        for path in self._created:
            with suppress(OSError):  # What stays is swept later.
                path.unlink()


def _ensure_pointer(index_prefix: Path) -> None:
    """Make ``CURRENT`` and the directories of a new index."""
    pointer = read_pointer(index_prefix)
    for folder in (layout.MANIFESTS, layout.SEGMENTS, layout.TOMBSTONES):
        make_directory(index_prefix / folder)
    if pointer is None:
        replace_file(index_prefix / layout.CURRENT, NOTHING_PUBLISHED.write_to)
