"""Making a new generation the current one."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from imagedex.core.errors import FingerprintMismatch, LeaseLost, StorageError
from imagedex.core.fingerprints import ModelIdentity, way_back
from imagedex.core.images import RowLocation
from imagedex.core.times import utc_now
from imagedex.segments import layout
from imagedex.segments._faiss import FaissFile
from imagedex.segments._parquet import ImageTable, write_tombstones
from imagedex.segments.durable import (
    WriteContent,
    create_file,
    make_directory,
    replace_file,
    storage_errors,
    sync_directory,
)
from imagedex.segments.interfaces import Commit
from imagedex.segments.manifest_json import encode_manifest
from imagedex.segments.parts import read_parts
from imagedex.segments.pointer import NOTHING_PUBLISHED, Pointer, read_pointer
from imagedex.segments.published import read_published
from imagedex.segments.records import FileEntry, Manifest, SegmentEntry, TombstoneEntry
from imagedex.segments.tombstones import TombstoneFiles, to_arrays


class Publication:
    """One commit. Whoever makes it holds the publish lock, from before until it is done.

    What it costs depends on the rows that it adds and removes and on the number of segments,
    not on the rows that these hold.
    """

    def __init__(self, index_prefix: Path, commit: Commit, tombstones: TombstoneFiles) -> None:
        self._index_prefix = index_prefix
        self._commit = commit
        self._tombstones = tombstones
        self._created: list[Path] = []

    def publish(self) -> Manifest:
        """Publish and return the new generation's manifest; see ``IndexFiles.commit``."""
        published = read_published(self._index_prefix)
        current = None if published is None else published.manifest
        _require_allowed(self._commit, current)
        before = _ensure_pointer(self._index_prefix)
        removed = self._fresh_removals(current)
        images = read_parts(self._index_prefix, self._commit.parts, dim=self._commit.dim)
        try:
            manifest = self._write_generation(current, images, removed)
            after = self._write_manifest(manifest)
        except Exception:
            # Whatever it was, nothing names these files, and a full disk needs the space.
            self._discard()
            raise
        self._make_current(before, after)
        return manifest

    def _fresh_removals(self, current: Manifest | None) -> list[RowLocation]:
        """Return the rows to remove, in order, without those that are gone already."""
        if not self._commit.removed:
            return []
        rows = {segment.number: segment.rows for segment in current.segments} if current else {}
        for location in self._commit.removed:
            if not 0 <= location.row < rows.get(location.segment, 0):
                raise ValueError(f"{location} cannot be removed: no published segment has it.")
        gone = self._tombstones.of(current.tombstones) if current else set[RowLocation]()
        return sorted(location for location in set(self._commit.removed) if location not in gone)

    def _write_generation(
        self, current: Manifest | None, images: ImageTable | None, removed: list[RowLocation]
    ) -> Manifest:
        """Write the files that a new generation adds, and return what its manifest says."""
        commit = self._commit
        segments = current.segments if current else ()
        tombstones = current.tombstones if current else ()
        next_segment = current.next_segment if current else 1
        generation = self._next_generation(current)
        if images is not None:
            number = self._free_segment(next_segment)
            segments += (self._write_segment(generation, number, images),)
            next_segment = number + 1
        if removed:
            tombstones += (self._write_tombstones(generation, removed),)
        now = utc_now()
        return Manifest(
            generation=generation,
            fence=commit.fence,
            model_name=commit.model_name,
            fingerprint=commit.fingerprint,
            dim=commit.dim,
            # As precise as it is written, so that it equals what will be read.
            created_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            images=sum(s.rows for s in segments) - sum(t.rows for t in tombstones),
            next_segment=next_segment,
            segments=segments,
            tombstones=tombstones,
            base_generation=current.base_generation if current else 0,
        )

    def _next_generation(self, current: Manifest | None) -> int:
        """Return a generation that has no files, not even some that a crash left over."""
        manifests = map(layout.generation_of_manifest, self._names_in(layout.MANIFESTS))
        tombstones = map(layout.generation_of_tombstones, self._names_in(layout.TOMBSTONES))
        taken = (number for number in (*manifests, *tombstones) if number is not None)
        return 1 + max(taken, default=current.generation if current else 0)

    def _free_segment(self, least: int) -> int:
        """Return a number that no segment has, not even one that a crash left over."""
        taken = map(layout.number_of_segment, self._names_in(layout.SEGMENTS))
        return max(least, 1 + max((number for number in taken if number is not None), default=0))

    def _names_in(self, folder: str) -> list[str]:
        directory = self._index_prefix / folder
        with storage_errors("list", directory):
            return [f"{folder}/{path.name}" for path in directory.iterdir()]

    def _write_segment(self, generation: int, number: int, images: ImageTable) -> SegmentEntry:
        commit = self._commit
        metadata = {
            "segment": str(number),
            "generation": str(generation),
            "model_name": commit.model_name,
            "fingerprint": commit.fingerprint,
            "dim": str(commit.dim),
            "job_id": commit.job_id,
            "chunks": ",".join(map(str, commit.chunks)),
        }
        faiss = FaissFile.build(images.vectors())
        entry = SegmentEntry(
            number=number,
            generation=generation,
            rows=images.rows,
            parquet=self._create(
                layout.parquet_name(number, commit.fence),
                lambda file: images.write_to(file, metadata),
            ),
            faiss=self._create(layout.faiss_name(number, commit.fence), faiss.write_to),
            job_id=commit.job_id,
            chunks=commit.chunks,
        )
        self._sync(layout.SEGMENTS)
        return entry

    def _write_tombstones(self, generation: int, removed: list[RowLocation]) -> TombstoneEntry:
        segments, rows = to_arrays(removed)
        file = self._create(
            layout.tombstone_name(generation, self._commit.fence),
            lambda file: write_tombstones(file, segments, rows),
        )
        self._sync(layout.TOMBSTONES)
        return TombstoneEntry(generation=generation, file=file, rows=len(removed))

    def _write_manifest(self, manifest: Manifest) -> Pointer:
        data = encode_manifest(manifest)
        name = layout.manifest_name(manifest.generation, manifest.fence)
        self._create(name, lambda file: file.write(data))
        self._sync(layout.MANIFESTS)
        return Pointer(manifest=name, sha256=hashlib.sha256(data).hexdigest())

    def _create(self, name: str, write: WriteContent) -> FileEntry:
        path = self._index_prefix / name
        written = create_file(path, write)
        self._created.append(path)
        return FileEntry(name=name, bytes=written.bytes, sha256=written.sha256)

    def _sync(self, folder: str) -> None:
        with storage_errors("flush", self._index_prefix / folder):
            sync_directory(self._index_prefix / folder)

    def _make_current(self, before: Pointer, after: Pointer) -> None:
        path = self._index_prefix / layout.CURRENT
        # The lock makes this sure on a sound file system; a share that lost its lock server
        # is worth a second look.
        if read_pointer(self._index_prefix) != before:
            self._discard()
            raise LeaseLost(
                f"Another owner has published to {str(self._index_prefix)!r} during this commit, "
                "which was given up; let the other go on."
            )
        try:
            replace_file(path, after.write_to)
        except StorageError:
            # It still is what it was, or it was replaced but may not outlive a power cut. The
            # caller is told that nothing was published, so that must be true in either case.
            if read_pointer(self._index_prefix) != before:
                replace_file(path, before.write_to)
            self._discard()
            raise

    def _discard(self) -> None:
        for path in self._created:
            with suppress(OSError):  # What stays is swept later.
                path.unlink()


def _ensure_pointer(index_prefix: Path) -> Pointer:
    """Return what ``CURRENT`` says, making it and the directories for a new index first."""
    pointer = read_pointer(index_prefix)
    for folder in (layout.MANIFESTS, layout.SEGMENTS, layout.TOMBSTONES):
        make_directory(index_prefix / folder)
    if pointer is None:
        pointer = NOTHING_PUBLISHED
        replace_file(index_prefix / layout.CURRENT, pointer.write_to)
    return pointer


def _require_allowed(commit: Commit, current: Manifest | None) -> None:
    generation = current.generation if current is not None else 0
    if current is not None and commit.fence < current.fence:
        raise LeaseLost(
            f"Fence {commit.fence} may not publish: fence {current.fence} has published "
            f"generation {current.generation}; the owner was replaced and must stop."
        )
    if commit.expected_generation != generation:
        raise LeaseLost(
            f"Generation {generation} is current but the commit was made for generation "
            f"{commit.expected_generation}; begin again from the current one."
        )
    if current is None:
        return
    if (commit.fingerprint, commit.dim) != (current.fingerprint, current.dim):
        stored = ModelIdentity(current.model_name, current.fingerprint)
        used = ModelIdentity(commit.model_name, commit.fingerprint)
        raise FingerprintMismatch(
            f"The index holds vectors of {stored}, {current.dim} numbers each, but the commit "
            f"has those of {used}, {commit.dim} numbers each; {way_back(stored, used)}."
        )
