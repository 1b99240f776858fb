"""One file of a hub, brought here whole and proven, however often that is interrupted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, cast

from imagedex.core.errors import ModelError
from imagedex.models.disk import FileDigests, file_digests, storage_errors, sync
from imagedex.models.interfaces import ModelHub, PullWatcher
from imagedex.models.records import RemoteFile

_PARTIAL_SUFFIX = ".part"


def download_file(
    hub: ModelHub,
    repo: str,
    commit: str,
    file: RemoteFile,
    target: Path,
    watcher: PullWatcher,
) -> None:
    """Have ``file`` at ``target``, complete, proven by its digest and flushed.

    What is there already is taken, and what a process that died had brought is continued. One
    caller at a time for a target. Raises ModelError when what comes is not what the hub says it
    is, StorageError, and what the hub raises.
    """
    if target.is_file() and not _difference(file, file_digests(target)):
        watcher.advance(file.bytes)
        return
    partial = _partial_path(file, target)
    with storage_errors("write", target):
        target.parent.mkdir(parents=True, exist_ok=True)
    difference = ""
    # A beginning that was not flushed before a power cut can be wrong; then once more, whole.
    for _ in range(2 if partial.exists() else 1):
        _complete(hub, repo, commit, file, partial, watcher)
        difference = _difference(file, file_digests(partial))
        if not difference:
            with storage_errors("write", target):
                sync(partial)
                partial.replace(target)
            return
        partial.unlink()
        watcher.advance(-file.bytes)
    raise ModelError(
        f"{hub.address(repo, commit, file.path)} is not what it should be: {difference}. It was "
        "thrown away; try again, and if it stays like this do not use this repository: somebody "
        "between here and there changes it."
    )


def left_to_come(file: RemoteFile, target: Path) -> int:
    """Return how many bytes of ``file`` are not at ``target`` or begun beside it."""
    for path in (target, _partial_path(file, target)):
        if path.is_file():
            return max(0, file.bytes - path.stat().st_size)
    return file.bytes


def _partial_path(file: RemoteFile, target: Path) -> Path:
    # The digest in its name keeps a beginning from being continued with another file's end.
    key = (file.sha256 or file.git_blob or "")[:16]
    return target.with_name(f"{target.name}.{key}{_PARTIAL_SUFFIX}")


def _complete(
    hub: ModelHub,
    repo: str,
    commit: str,
    file: RemoteFile,
    partial: Path,
    watcher: PullWatcher,
) -> None:
    with storage_errors("write", partial):
        raw = open(partial, "ab")  # noqa: SIM115 - closed below, apart from the hub's errors.
    try:
        if raw.tell() > file.bytes:
            raw.truncate(0)
            raw.seek(0)
        watcher.advance(raw.tell())
        watched = _WatchedFile(raw, partial, watcher, most=file.bytes)
        hub.download(repo, commit, file, cast("BinaryIO", watched))
        with storage_errors("write", partial):
            raw.flush()
    finally:
        # What did not reach the disk is missed by the digest; the first error is the one to tell.
        with storage_errors("write", partial):
            raw.close()


class _WatchedFile:
    """The part of a binary stream that a download needs; every write is told.

    It takes ``most`` bytes: a server that goes on sending must not fill the disk.
    """

    def __init__(self, raw: BinaryIO, path: Path, watcher: PullWatcher, *, most: int) -> None:
        self._raw = raw
        self._path = path
        self._watcher = watcher
        self._most = most

    def write(self, data: bytes) -> int:
        if self._raw.tell() + len(data) > self._most:
            raise ModelError(
                f"More than the {self._most:,} bytes that the hub lists came for "
                f"{str(self._path)!r}; try again, and if it stays like this do not use this "
                "repository: somebody between here and there changes it."
            )
        with storage_errors("write", self._path):
            self._raw.write(data)
        self._watcher.advance(len(data))
        return len(data)

    def tell(self) -> int:
        return self._raw.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        length = self._raw.tell() if size is None else size
        dropped = self._raw.seek(0, os.SEEK_END) - length
        self._raw.truncate(length)
        self._raw.seek(length)
        self._watcher.advance(-dropped)
        return length


def _difference(file: RemoteFile, found: FileDigests) -> str:
    """Say in which way what was found is not ``file``; nothing when it is."""
    if found.bytes != file.bytes:
        return f"it has {found.bytes:,} bytes, not {file.bytes:,}"
    if file.sha256 is not None and found.sha256 != file.sha256:
        return f"its SHA-256 is {found.sha256}, not {file.sha256}"
    if file.git_blob is not None and found.git_blob != file.git_blob:
        return f"its git blob is {found.git_blob}, not {file.git_blob}"
    return ""
