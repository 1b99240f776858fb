"""The file ``CURRENT``: which manifest counts.

It is a line of JSON with the manifest's name and SHA-256. It exists, naming no manifest, before
the first manifest or segment is written; so when it is missing beside such files it was
lost, and the index is damaged rather than new.
"""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from pathlib import Path

from imagedex.core.errors import CorruptIndex
from imagedex.segments import layout
from imagedex.segments.durable import HashingFile, storage_errors

VERSION = 1
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Pointer:
    """What ``CURRENT`` says."""

    manifest: str | None  # Name below the index prefix; None while nothing was published.
    sha256: str | None  # Of the manifest file, hexadecimal.

    @property
    def generation(self) -> int:
        """The generation of that manifest; 0 for none."""
        return layout.generation_of_manifest(self.manifest or "") or 0

    def write_to(self, file: HashingFile) -> None:
        """Write the content of ``CURRENT``."""
        document = {"version": VERSION, "manifest": self.manifest, "sha256": self.sha256}
        file.write(json.dumps(document).encode() + b"\n")


NOTHING_PUBLISHED = Pointer(manifest=None, sha256=None)


def read_pointer(index_prefix: Path) -> Pointer | None:
    """Return what ``CURRENT`` says, or None where there is no index at all.

    Raises CorruptIndex when it is damaged, or missing beside an index's files; StorageError
    when it cannot be read.
    """
    path = index_prefix / layout.CURRENT
    with storage_errors("read", path):
        try:
            data = _read_replaced(path)
        except FileNotFoundError:
            return _read_missing(index_prefix)
    try:
        return _decode(data)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptIndex(
            f"The file {str(path)!r} is damaged ({error}); restore it from a copy of the index, "
            "or index again under another prefix."
        ) from error


def _read_missing(index_prefix: Path) -> Pointer | None:
    for folder in (layout.MANIFESTS, layout.SEGMENTS):
        directory = index_prefix / folder
        if directory.is_dir() and any(directory.iterdir()):
            # It may have been created, and all the rest with it, since it was looked for.
            path = index_prefix / layout.CURRENT
            if path.exists():
                return read_pointer(index_prefix)
            raise CorruptIndex(
                f"The file {str(path)!r} is missing, though {folder!r} beside it holds files; "
                "restore it from a copy of the index, or index again under another prefix."
            )
    return None


def _read_replaced(path: Path) -> bytes:
    """Read a file that others replace. NFS may lose sight of it in that moment (ESTALE)."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return path.read_bytes()


def _decode(data: bytes) -> Pointer:
    document = json.loads(data)
    if not isinstance(document, dict) or document.keys() != {"version", "manifest", "sha256"}:
        raise ValueError(f"{data[:80]!r} is not a pointer to a manifest")
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r}, expected {VERSION}")
    manifest, sha256 = document["manifest"], document["sha256"]
    if manifest is None and sha256 is None:
        return NOTHING_PUBLISHED
    if not isinstance(sha256, str) or layout.generation_of_manifest(manifest) is None:
        raise ValueError(f"{manifest!r} is not the name of a manifest")
    return Pointer(manifest=manifest, sha256=sha256)
