"""Is an index on the disk what it should be? Reads everything, changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from imagedex.core.errors import CorruptIndex
from imagedex.segments import layout
from imagedex.segments.alignment import require_aligned
from imagedex.segments.durable import storage_errors
from imagedex.segments.findings import REPAIR, Finding, FindingKind
from imagedex.segments.integrity import require_intact
from imagedex.segments.live_rows import LiveRows
from imagedex.segments.lock import publish_lock
from imagedex.segments.manifest_json import decode_manifest
from imagedex.segments.pointer import read_pointer
from imagedex.segments.published import read_published
from imagedex.segments.records import FileEntry, Manifest, SegmentEntry
from imagedex.segments.sweeping import sweepable_names

_ATTEMPTS = 5
_LOST_VECTORS = (
    "restore a snapshot that holds it (imagedex snapshot list), or the file from a copy of the "
    "index, or index again under another prefix"
)


@dataclass(frozen=True, slots=True)
class FilesReport:
    """What the files below an index prefix show."""

    manifest: Manifest | None  # Of the generation that counts; None without one that is readable.
    findings: tuple[Finding, ...]
    files_checked: int
    bytes_checked: int
    parts: tuple[str, ...]  # Names of the parts that lie there, and of half-written ones.

    @property
    def has_all_rows(self) -> bool:
        """Whether each file that says which images the index holds is intact."""
        fatal = (
            FindingKind.POINTER,
            FindingKind.MANIFEST,
            FindingKind.PARQUET,
            FindingKind.TOMBSTONES,
            FindingKind.DOUBLED,
        )
        return self.manifest is not None and all(f.kind not in fatal for f in self.findings)


def examine_files(index_prefix: Path, *, is_locked: bool = False) -> FilesReport:
    """Look at all files of an index; those of a running server may change meanwhile.

    Raises StorageError when the storage cannot be read, which is no finding about the index.

    Parameters
    ----------
    is_locked
        The caller holds the publish lock.
    """
    for _ in range(_ATTEMPTS - 1):
        before = _pointer_bytes(index_prefix)
        report = _Examination(index_prefix, is_locked=is_locked).report()
        # What was missing may have been swept because a newer generation counts.
        if not report.findings or _pointer_bytes(index_prefix) == before:
            return report
    return _Examination(index_prefix, is_locked=is_locked).report()


def manifests_present(index_prefix: Path) -> list[tuple[str, Manifest | CorruptIndex]]:
    """Return all manifests below a prefix by name, newest first, or why they cannot be read.

    Of two with the same generation, that with the higher fence is the newer one.
    """
    directory = index_prefix / layout.MANIFESTS
    found: list[tuple[int, int, str, Manifest | CorruptIndex]] = []
    with storage_errors("list", directory):
        names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
        for name in (f"{layout.MANIFESTS}/{name}" for name in names):
            generation = layout.generation_of_manifest(name)
            if generation is None:
                continue
            fence = int(name.rpartition("-")[2].removesuffix(".json"))
            try:
                data = (index_prefix / name).read_bytes()
            except FileNotFoundError:
                continue  # Swept in this moment.
            try:
                found.append((generation, fence, name, decode_manifest(data, name)))
            except CorruptIndex as error:
                found.append((generation, fence, name, error))
    return [(name, read) for _, _, name, read in sorted(found, key=lambda f: f[:2], reverse=True)]


class _Examination:
    """One look at all files."""

    def __init__(self, index_prefix: Path, *, is_locked: bool) -> None:
        self._index_prefix = index_prefix
        self._is_locked = is_locked
        self._findings: list[Finding] = []
        self._files = 0
        self._bytes = 0

    def report(self) -> FilesReport:
        manifest = self._current()
        if manifest is not None:
            for segment in manifest.segments:
                self._examine_segment(segment, dim=manifest.dim)
            for entry in manifest.tombstones:
                self._is_intact(entry.file, FindingKind.TOMBSTONES, _LOST_VECTORS)
            self._examine_rows(manifest)
        parts = tuple(
            name for name in _our_files(self._index_prefix) if name.startswith(layout.PARTS)
        )
        self._find_orphans()
        return FilesReport(manifest, tuple(self._findings), self._files, self._bytes, parts)

    def _current(self) -> Manifest | None:
        pointer_path = self._index_prefix / layout.CURRENT
        try:
            pointer = read_pointer(self._index_prefix)
        except CorruptIndex as error:
            self._add(FindingKind.POINTER, pointer_path, str(error), REPAIR)
            return None
        if pointer is None or pointer.manifest is None:
            return None
        try:
            published = read_published(self._index_prefix)
        except CorruptIndex as error:
            path = self._index_prefix / pointer.manifest
            self._add(FindingKind.MANIFEST, path, str(error), REPAIR)
            return None
        return None if published is None else published.manifest

    def _examine_segment(self, segment: SegmentEntry, *, dim: int) -> None:
        has_parquet = self._is_intact(segment.parquet, FindingKind.PARQUET, _LOST_VECTORS)
        faiss = segment.faiss
        has_faiss = faiss is not None and self._is_intact(faiss, FindingKind.FAISS, REPAIR)
        if segment.ivf is not None:
            self._is_intact(segment.ivf.file, FindingKind.FAISS, REPAIR)
        if faiss is None or not (has_parquet and has_faiss):
            return
        path = self._index_prefix / faiss.name
        self._check(
            FindingKind.ALIGNMENT,
            path,
            REPAIR,
            lambda: require_aligned(self._index_prefix, segment, faiss, dim=dim),
        )

    def _is_intact(self, entry: FileEntry, kind: FindingKind, remedy: str) -> bool:
        self._files += 1
        self._bytes += entry.bytes
        path = self._index_prefix / entry.name
        return self._check(kind, path, remedy, lambda: require_intact(self._index_prefix, entry))

    def _check(
        self, kind: FindingKind, path: Path, remedy: str, check: Callable[[], object]
    ) -> bool:
        try:
            check()
        except CorruptIndex as error:
            self._add(kind, path, str(error), remedy)
            return False
        return True

    def _examine_rows(self, manifest: Manifest) -> None:
        """Look for images that are there twice, once all files are known to be intact."""
        if any(f.kind in (FindingKind.PARQUET, FindingKind.TOMBSTONES) for f in self._findings):
            return
        try:
            rows = LiveRows(self._index_prefix, manifest)
        except CorruptIndex as error:
            self._add(FindingKind.TOMBSTONES, None, str(error), _LOST_VECTORS)
            return
        seen: set[str] = set()
        doubled = 0
        example = ""
        for path in rows.left():
            if path in seen:
                doubled, example = doubled + 1, path
            seen.add(path)
        if doubled:
            self._add(
                FindingKind.DOUBLED,
                None,
                f"{doubled} rows hold images that other rows hold too, such as {example!r}.",
                "index these images again with --force, or restore a snapshot",
            )

    def _find_orphans(self) -> None:
        unreadable = (FindingKind.POINTER, FindingKind.MANIFEST)
        # While it is not known what counts, nothing is known to be an orphan.
        if any(f.kind in unreadable for f in self._findings) or not self._orphans():
            return
        # A commit may be writing them. The lock tells, as far as it can be had.
        with nullcontext() if self._is_locked else publish_lock(self._index_prefix).held():
            self._report_orphans(self._orphans())

    def _report_orphans(self, names: list[str]) -> None:
        for name in names:
            self._add(
                FindingKind.ORPHAN,
                self._index_prefix / name,
                f"No generation needs the file {str(self._index_prefix / name)!r}; a crash "
                "left it.",
                f"the next job of the index deletes it, and {REPAIR}",
            )

    def _orphans(self) -> list[str]:
        needed: set[str] = set()
        for name, manifest in manifests_present(self._index_prefix):
            needed.add(name)
            if isinstance(manifest, Manifest):
                needed.update(file.name for file in files_of(manifest))
        return [
            name
            for name in _our_files(self._index_prefix)
            if name not in needed and not name.startswith(layout.PARTS)
        ]

    def _add(self, kind: FindingKind, path: Path | None, message: str, remedy: str) -> None:
        text = None if path is None else str(path)
        self._findings.append(Finding(kind, text, message, remedy))


def files_of(manifest: Manifest) -> Iterator[FileEntry]:
    """Yield all files that a generation needs beside its manifest."""
    for segment in manifest.segments:
        yield from segment.files
    for entry in manifest.tombstones:
        yield entry.file


def _our_files(index_prefix: Path) -> list[str]:
    with storage_errors("list", index_prefix):
        return sorted(sweepable_names(index_prefix))


def _pointer_bytes(index_prefix: Path) -> bytes | None:
    path = index_prefix / layout.CURRENT
    with storage_errors("read", path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
