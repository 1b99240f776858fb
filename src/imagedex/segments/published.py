"""The generation that counts now."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import structlog

from imagedex.core.errors import CorruptIndex
from imagedex.segments import layout
from imagedex.segments.durable import replace_file, storage_errors
from imagedex.segments.manifest_json import decode_manifest
from imagedex.segments.pointer import Pointer, read_pointer
from imagedex.segments.records import Manifest
from imagedex.segments.succession import follow, last_of_line

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Published:
    """What names the current manifest, and what it holds."""

    pointer: Pointer  # As CURRENT should say, and does but for a moment, or after a fault.
    manifest: Manifest | None

    @property
    def generation(self) -> int:
        """The current generation; 0 while nothing was published."""
        return self.pointer.generation


def read_published(index_prefix: Path, known: Published | None = None) -> Published | None:
    """Return the current generation, or None where there is no index at all.

    That is the last of the line in which ``CURRENT`` names one. A manifest never changes, so
    ``known`` is returned as it is while it is still that one. Takes no lock: publishing and
    sweeping at the same time do no harm. Raises CorruptIndex, StorageError.
    """
    before = None
    while (current := read_pointer(index_prefix)) is not None:
        try:
            pointer = follow(index_prefix, current)
            if known is not None and known.pointer == pointer:
                return known
            return Published(pointer, read_pointed(index_prefix, pointer))
        except FileNotFoundError as error:
            # It may have been replaced, and swept, since CURRENT was read.
            if current == before:
                return _read_past(index_prefix, current, error)
            before = current
    return None


def _read_past(index_prefix: Path, current: Pointer, error: FileNotFoundError) -> Published:
    """Return the current generation although what ``CURRENT`` names is gone.

    An owner that was replaced has put it back to what is kept no longer; or else it is damage.
    """
    try:
        pointer = last_of_line(index_prefix, above=current.generation)
        if pointer is not None:
            return Published(pointer, read_pointed(index_prefix, pointer))
    except FileNotFoundError as gone:
        error = gone
    raise CorruptIndex(
        f"The manifest {current.manifest!r} that CURRENT names, or one that follows it, is missing "
        f"below {str(index_prefix)!r}; restore it from a copy of the index, or index "
        "again under another prefix."
    ) from error


def heal(index_prefix: Path) -> None:
    """Let ``CURRENT`` name the current generation, where it was left or put behind.

    The caller holds the publish lock. Raises CorruptIndex, StorageError.
    """
    published = read_published(index_prefix)
    if published is not None and published.pointer != read_pointer(index_prefix):
        replace_file(index_prefix / layout.CURRENT, published.pointer.write_to)
        _log.warning(
            "pointer_healed", index_prefix=str(index_prefix), generation=published.generation
        )


def read_pointed(index_prefix: Path, pointer: Pointer) -> Manifest | None:
    """Return the manifest that a pointer names, None when it names none.

    Raises FileNotFoundError when it is not there, CorruptIndex, StorageError.
    """
    if pointer.manifest is None:
        return None
    path = index_prefix / pointer.manifest
    with storage_errors("read", path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = None
    if data is None:
        raise FileNotFoundError(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != pointer.sha256:
        raise CorruptIndex(
            f"The manifest {str(path)!r} has SHA-256 {sha256} but CURRENT expects "
            f"{pointer.sha256}; restore both from a copy of the index, or index again under "
            "another prefix."
        )
    return decode_manifest(data, pointer.manifest)
