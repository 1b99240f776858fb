"""Snapshots: whole copies of a generation that outlive its sweeping.

::

    NAME/snapshot.json                what it holds; the directory appears with it, whole
    NAME/manifests/, segments/, tombstones/   the generation's files, named as in the index
    NAME/failures.jsonl               images that could not be indexed: one JSON object a line

A snapshot is made under a temporary name that begins with a dot and gets its name when all of it
is durable; it is deleted the other way round. Its files are hard links where the file system has
them, which cost no space as long as the index holds the same files, and copies elsewhere.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from imagedex.core.errors import Conflict, CorruptIndex, InvalidRequest, NotFound
from imagedex.core.images import FailureReason, FileStamp, ImageFailure
from imagedex.core.times import iso_z, utc_now
from imagedex.segments import layout
from imagedex.segments.durable import (
    HashingFile,
    create_file,
    make_directory,
    replace_file,
    storage_errors,
    sync_directory,
)
from imagedex.segments.examination import files_of
from imagedex.segments.integrity import go_on, is_intact, require_intact
from imagedex.segments.lock import PublishLock, publish_lock
from imagedex.segments.manifest_json import decode_manifest, encode_manifest
from imagedex.segments.pointer import NOTHING_PUBLISHED
from imagedex.segments.published import Published, read_published
from imagedex.segments.records import FileEntry, Manifest
from imagedex.segments.republishing import highest_fence, republish, with_files

VERSION = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_DOCUMENT = "snapshot.json"
_FAILURES = "failures.jsonl"
_LOCK_WAIT_SECONDS = 30.0
_COPY_BYTES = 4 * 1024 * 1024
# Where a link cannot be had though the file is there.
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One that is there, whole."""

    name: str
    created_at: datetime
    index_prefix: Path  # Of the index that it was taken of.
    manifest: Manifest  # Of the generation that it holds.
    failures: FileEntry
    failed_images: int

    @property
    def bytes(self) -> int:
        """The size of its files, which may be shared with the index."""
        return self.failures.bytes + sum(file.bytes for file in files_of(self.manifest))


class SnapshotDirectory:
    """The snapshots of one index. Safe to call from several processes."""

    def __init__(self, directory: Path) -> None:
        """Take the directory, which need not exist before a snapshot is made."""
        self._directory = directory

    def create(
        self,
        name: str,
        index_prefix: Path,
        manifest: Manifest,
        failures: Iterable[ImageFailure],
        *,
        checkpoint: Callable[[], None] = go_on,
    ) -> Snapshot:
        """Keep a generation under a name, durably and as a whole or not at all.

        Every file is held against its checksum. Raises InvalidRequest for a name that cannot be
        one, Conflict when it is taken, CorruptIndex when a file of the generation is missing or
        damaged, StorageError; and what ``checkpoint`` raises, which is called every few MB; then
        there is no such snapshot.
        """
        final = self._path(name)
        make_directory(self._directory)
        with self._lock().held():
            self._tidy()
            return self._create(final, index_prefix, manifest, failures, checkpoint)

    def _create(
        self,
        final: Path,
        index_prefix: Path,
        manifest: Manifest,
        failures: Iterable[ImageFailure],
        checkpoint: Callable[[], None],
    ) -> Snapshot:
        name = final.name
        if final.exists():
            raise _taken(name)
        temporary = self._directory / f".{name}.{secrets.token_hex(6)}{layout.TEMPORARY_SUFFIX}"
        try:
            snapshot = self._write(temporary, name, index_prefix, manifest, failures, checkpoint)
            with storage_errors("write", final):
                temporary.rename(final)
                sync_directory(self._directory)
        finally:
            # After an error the space is needed; what cannot be deleted is tidied up later.
            shutil.rmtree(temporary, ignore_errors=True)
        return snapshot

    def _write(
        self,
        directory: Path,
        name: str,
        index_prefix: Path,
        manifest: Manifest,
        failures: Iterable[ImageFailure],
        checkpoint: Callable[[], None],
    ) -> Snapshot:
        for folder in (layout.MANIFESTS, layout.SEGMENTS, layout.TOMBSTONES):
            make_directory(directory / folder)
        # The directory is nobody else's yet, so that its files need no hard links, which the disks
        # that people keep copies on often lack.
        # To take hold of all of them first, the small ones foremost: these are merged away soon,
        # while a large one is read.
        files = sorted(files_of(manifest), key=lambda file: file.bytes)
        for file in files:
            link_or_copy(index_prefix / file.name, directory / file.name, replace_file, checkpoint)
        for file in files:
            require_intact(directory, file, checkpoint=checkpoint)
        count = 0

        def write_failures(file: HashingFile) -> None:
            nonlocal count
            for failure in failures:
                file.write(_encode_failure(failure))
                count += 1

        written = replace_file(directory / _FAILURES, write_failures)
        entry = FileEntry(_FAILURES, written.bytes, written.sha256)
        data = encode_manifest(manifest)
        manifest_name = layout.manifest_name(manifest.generation, manifest.fence)
        replace_file(directory / manifest_name, lambda file: file.write(data))
        now = utc_now()
        snapshot = Snapshot(
            name=name,
            created_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            index_prefix=index_prefix,
            manifest=manifest,
            failures=entry,
            failed_images=count,
        )
        document = _encode(snapshot, manifest_name, hashlib.sha256(data).hexdigest())
        replace_file(directory / _DOCUMENT, lambda file: file.write(document))
        with storage_errors("flush", directory):
            for folder in (layout.MANIFESTS, layout.SEGMENTS, layout.TOMBSTONES, "."):
                sync_directory(directory / folder)
        return snapshot

    def list(self) -> list[Snapshot | CorruptIndex]:
        """Return all snapshots, oldest first, and after them why some cannot be read."""
        with storage_errors("list", self._directory):
            names = (
                sorted(path.name for path in self._directory.iterdir())
                if self._directory.is_dir()
                else []
            )
        read: list[Snapshot] = []
        damaged: list[CorruptIndex] = []
        for name in (name for name in names if _is_name(name)):
            try:
                read.append(self.get(name))
            except CorruptIndex as error:
                damaged.append(error)
            except NotFound:
                continue  # Deleted in this moment, or no snapshot.
        return [*sorted(read, key=lambda snapshot: (snapshot.created_at, snapshot.name)), *damaged]

    def get(self, name: str) -> Snapshot:
        """Return one. Raises NotFound, InvalidRequest, CorruptIndex when it cannot be read."""
        path = self._path(name)
        document = path / _DOCUMENT
        with storage_errors("read", document):
            try:
                data = document.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                raise _unknown(name, self._directory) from None
        try:
            return _decode(path, json.loads(data))
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            raise CorruptIndex(
                f"The snapshot {str(path)!r} is damaged ({error}); delete it, or restore it from "
                "a copy."
            ) from error

    def failures(self, snapshot: Snapshot) -> Iterator[ImageFailure]:
        """Yield the images that had failed. Raises CorruptIndex, StorageError."""
        path = require_intact(self._path(snapshot.name), snapshot.failures)
        with storage_errors("read", path), open(path, "rb") as file:
            for line in file:
                yield _decode_failure(json.loads(line))

    def bring_back(
        self, snapshot: Snapshot, index_prefix: Path, *, known_generation: int
    ) -> Manifest:
        """Publish what a snapshot holds as a new generation, whatever is there now.

        Files that the current generation lists are used as they are; others come back as links or
        copies under names of their own, which nobody deletes who was replaced. ``CURRENT``
        may be damaged. The caller holds the publish lock. Raises CorruptIndex when the snapshot
        is damaged, StorageError; in both cases the current generation is what it was.

        Parameters
        ----------
        known_generation
            The newest that the catalog knows: the new one gets a higher number.
        """
        fence = 1 + max(snapshot.manifest.fence, highest_fence(index_prefix))
        _begin_index(index_prefix)
        source = self._path(snapshot.name)
        manifest = snapshot.manifest
        current = _current(index_prefix)
        listed = (
            set(files_of(current.manifest))
            if current is not None and current.manifest is not None
            else set[FileEntry]()
        )
        again = with_files(
            manifest,
            lambda file, name: _place(source, file, index_prefix, name, listed=listed),
            fence=fence,
        )
        for folder in (layout.SEGMENTS, layout.TOMBSTONES):
            with storage_errors("flush", index_prefix / folder):
                sync_directory(index_prefix / folder)
        return republish(
            index_prefix,
            again,
            after=None if current is None else current.generation,
            fence=fence,
            least_generation=known_generation + 1,
        )

    def delete(self, name: str) -> None:
        """Delete one, as a whole, whether it can be read or not. Raises NotFound, StorageError."""
        path = self._path(name)
        with storage_errors("look at", path):
            is_snapshot = (path / _DOCUMENT).is_file()
        if not is_snapshot:
            # What somebody else has put there is nobody's to delete by a name.
            raise _unknown(name, self._directory)
        gone = self._directory / f".{name}.{secrets.token_hex(6)}{layout.TEMPORARY_SUFFIX}"
        with self._lock().held(), storage_errors("delete", path):
            try:
                path.rename(gone)
            except FileNotFoundError:
                raise _unknown(name, self._directory) from None
            sync_directory(self._directory)
            self._tidy()

    def _lock(self) -> PublishLock:
        return publish_lock(self._directory, wait_seconds=_LOCK_WAIT_SECONDS)

    def _tidy(self) -> None:
        """Delete what is on its way out, and what a crash left. The lock is held."""
        with storage_errors("tidy up", self._directory):
            for path in self._directory.glob(f".*{layout.TEMPORARY_SUFFIX}"):
                shutil.rmtree(path)

    def _path(self, name: str) -> Path:
        if not _is_name(name):
            raise InvalidRequest(
                f"{name!r} cannot name a snapshot; use up to 100 letters, digits, '-', '_' and "
                "'.', beginning with a letter or digit."
            )
        return self._directory / name


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name != layout.LOCK


def link_or_copy(
    source: Path,
    target: Path,
    write: Callable[[Path, Callable[[HashingFile], object]], object] = create_file,
    checkpoint: Callable[[], None] = go_on,
) -> None:
    """Give a file a second name, or copy it with ``write`` where that cannot be.

    Raises CorruptIndex when it is missing, StorageError, also when ``target`` is taken, and what
    ``checkpoint`` raises, which is called every few MB of a copy.
    """
    with storage_errors("write", target):
        try:
            os.link(source, target)
            return
        except FileNotFoundError as error:
            if target.parent.is_dir():
                raise CorruptIndex(
                    f"The file {str(source)!r} is missing; see imagedex doctor."
                ) from error
            raise
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
    with storage_errors("read", source), open(source, "rb") as file:
        write(target, lambda copy: _copy(file, copy, checkpoint))


def _copy(source: Any, target: HashingFile, checkpoint: Callable[[], None]) -> None:
    while data := source.read(_COPY_BYTES):
        checkpoint()
        target.write(data)


def _begin_index(index_prefix: Path) -> None:
    """Make the directories of an index, so that a crash from here on leaves none half-made."""
    is_new = not any((index_prefix / name).exists() for name in (layout.CURRENT, layout.MANIFESTS))
    make_directory(index_prefix)
    if is_new:
        replace_file(index_prefix / layout.CURRENT, NOTHING_PUBLISHED.write_to)
    for folder in (layout.MANIFESTS, layout.SEGMENTS, layout.TOMBSTONES):
        make_directory(index_prefix / folder)


def _current(index_prefix: Path) -> Published | None:
    """Return the current generation, or None where damage hides it."""
    try:
        return read_published(index_prefix)
    except CorruptIndex:
        return None


def _place(
    source: Path, entry: FileEntry, index_prefix: Path, name: str, *, listed: AbstractSet[FileEntry]
) -> FileEntry:
    """Have a file of a snapshot in the index: the one that is listed there, or one of this name."""
    require_intact(source, entry)
    if entry in listed and is_intact(index_prefix, entry):
        return entry
    placed = replace(entry, name=name)
    link_or_copy(source / entry.name, index_prefix / name)
    require_intact(index_prefix, placed)
    return placed


def _taken(name: str) -> Conflict:
    return Conflict(f"There is a snapshot {name!r} already; choose another name, or delete it.")


def _unknown(name: str, directory: Path) -> NotFound:
    return NotFound(
        f"There is no snapshot {name!r} in {str(directory)!r}; see imagedex snapshot list."
    )


def _encode(snapshot: Snapshot, manifest_name: str, sha256: str) -> bytes:
    document = {
        "version": VERSION,
        "created_at": iso_z(snapshot.created_at),
        "index_prefix": str(snapshot.index_prefix),
        "manifest": {"name": manifest_name, "sha256": sha256},
        "failures": {"bytes": snapshot.failures.bytes, "sha256": snapshot.failures.sha256},
        "failed_images": snapshot.failed_images,
    }
    return json.dumps(document).encode() + b"\n"


def _decode(path: Path, document: Any) -> Snapshot:
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r}, expected {VERSION}")
    name = document["manifest"]["name"]
    if layout.generation_of_manifest(name) is None:
        raise ValueError(f"{name!r} is not the name of a manifest")
    data = (path / name).read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != document["manifest"]["sha256"]:
        raise ValueError(f"its manifest has SHA-256 {sha256}")
    failures = document["failures"]
    return Snapshot(
        name=path.name,
        created_at=datetime.fromisoformat(document["created_at"]),
        index_prefix=Path(document["index_prefix"]),
        manifest=decode_manifest(data, name),
        failures=FileEntry(_FAILURES, int(failures["bytes"]), str(failures["sha256"])),
        failed_images=int(document["failed_images"]),
    )


def _encode_failure(failure: ImageFailure) -> bytes:
    stamp = failure.stamp
    document = {
        "image_path": failure.image_path,
        "reason": failure.reason.value,
        "detail": failure.detail,
        "size": None if stamp is None else stamp.size,
        "mtime_ns": None if stamp is None else stamp.mtime_ns,
    }
    return json.dumps(document).encode() + b"\n"


def _decode_failure(document: Any) -> ImageFailure:
    size, mtime_ns = document["size"], document["mtime_ns"]
    return ImageFailure(
        document["image_path"],
        FailureReason(document["reason"]),
        document["detail"],
        None if size is None else FileStamp(size, mtime_ns),
    )
