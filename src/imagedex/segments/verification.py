"""Files that are opened before they are compared with their checksums, and compared afterwards.

Hashing takes seconds a gigabyte, which a server that starts has not. So a large file is opened when
its size and its structure are right, and hashed while it already serves. That is safe because no
byte of it is believed to say where others are: of a flat file only the numbers are used, and of a
Parquet file the footer and pages whose own checksums hold. What Faiss reads by itself is always
hashed first (docs/decisions/0014-large-files-are-verified-while-they-serve.md).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imagedex.core.errors import CorruptIndex, StorageError
from imagedex.segments.integrity import require_intact, require_size
from imagedex.segments.records import FileEntry, Manifest

LARGE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class _Damage:
    reason: str
    # Of the file, the last one before it was compared. None when it could not be read, as that may
    # have been the share and not the file: then it is compared again each time.
    change: tuple[int, int] | None


class Interrupted(Exception):
    """A comparison was given up because its caller wanted it so."""


class Verification:
    """What is known of the large files of one index. Safe to call from several threads."""

    def __init__(self, index_prefix: Path, *, large_bytes: int = LARGE_BYTES) -> None:
        """Take the index, and from how many bytes on a file is large."""
        self._index_prefix = index_prefix
        self._large_bytes = large_bytes
        self._intact: frozenset[FileEntry] = frozenset()
        self._damaged: dict[FileEntry, _Damage] = {}

    def require(self, entry: FileEntry) -> Path:
        """Return the path of a file that may be opened.

        A small one is intact. A large one has its size and is left to ``verify``, unless it was
        found damaged before: then it is compared again once it looks otherwise, as somebody may
        have restored it. Raises CorruptIndex, StorageError.
        """
        if entry.bytes < self._large_bytes:
            return require_intact(self._index_prefix, entry)
        damage = self._damaged.get(entry)
        if damage is not None:
            # Everybody who asks an index that cannot be served comes here.
            change = self._last_change(entry)
            if change is not None and damage.change == change:
                raise CorruptIndex(damage.reason)
            try:
                path = require_intact(self._index_prefix, entry)
            except StorageError as error:
                if not _is_damage(error):
                    raise
                self._note(entry, error, change)
                raise CorruptIndex(str(error)) from error
            self._damaged = {file: why for file, why in self._damaged.items() if file != entry}
            return path
        return require_size(self._index_prefix, entry)

    def is_damaged(self, entry: FileEntry) -> bool:
        """Say whether a file was found damaged."""
        return entry in self._damaged

    def verify(self, manifest: Manifest, *, should_stop: Callable[[], bool]) -> tuple[str, ...]:
        """Compare each large file that was not compared before; return what is wrong, by file.

        What is known of files that the manifest does not list is forgotten. Raises StorageError
        when a file cannot be read, Interrupted soon after ``should_stop()`` is true.
        """
        large = [
            file
            for segment in manifest.segments
            for file in (segment.parquet, segment.faiss)
            if file is not None and file.bytes >= self._large_bytes
        ]

        def checkpoint() -> None:
            if should_stop():
                raise Interrupted

        self._intact = self._intact.intersection(large)
        self._damaged = {file: why for file, why in self._damaged.items() if file in large}
        found = []
        for file in large:
            if file in self._intact or file in self._damaged:
                continue
            change = self._last_change(file)
            try:
                require_intact(self._index_prefix, file, checkpoint=checkpoint)
            except StorageError as error:
                if not _is_damage(error):
                    raise
                if not (self._index_prefix / file.name).exists():
                    continue  # Swept, or deleted: what is open stays whole.
                self._note(file, error, change)
                found.append(str(error))
            else:
                self._intact |= {file}
        return tuple(found)

    def _note(self, entry: FileEntry, error: StorageError, change: tuple[int, int] | None) -> None:
        is_read = isinstance(error, CorruptIndex)
        damage = _Damage(str(error), change if is_read else None)
        self._damaged = {**self._damaged, entry: damage}

    def _last_change(self, entry: FileEntry) -> tuple[int, int] | None:
        try:
            status = (self._index_prefix / entry.name).stat()
        except OSError:
            return None  # Whoever opens it finds out why.
        # Not the time of its last writing, which a copy may keep.
        return status.st_ino, status.st_ctime_ns


def _is_damage(error: StorageError) -> bool:
    """Say whether a file is damaged: its content differs, or the disk cannot read all of it."""
    cause = error.__cause__
    is_unreadable = isinstance(cause, OSError) and cause.errno == errno.EIO
    return isinstance(error, CorruptIndex) or is_unreadable
