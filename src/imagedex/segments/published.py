"""The generation that counts now."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from imagedex.core.errors import CorruptIndex
from imagedex.segments.durable import storage_errors
from imagedex.segments.manifest_json import decode_manifest
from imagedex.segments.pointer import Pointer, read_pointer
from imagedex.segments.records import Manifest


@dataclass(frozen=True, slots=True)
class Published:
    """What ``CURRENT`` said, and the manifest that it named."""

    pointer: Pointer
    manifest: Manifest | None


def read_published(index_prefix: Path, known: Published | None = None) -> Published | None:
    """Return the current generation, or None where there is no index at all.

    A manifest never changes, so ``known`` is returned as it is while ``CURRENT`` names the same.
    Takes no lock: publishing and sweeping at the same time do no harm. Raises CorruptIndex,
    StorageError.
    """
    pointer = read_pointer(index_prefix)
    while pointer is not None:
        if known is not None and known.pointer == pointer:
            return known
        try:
            return Published(pointer, read_pointed(index_prefix, pointer))
        except FileNotFoundError as error:
            # It may have been replaced, and swept, since CURRENT was read.
            newer = read_pointer(index_prefix)
            if newer == pointer:
                raise CorruptIndex(
                    f"The manifest {pointer.manifest!r} that CURRENT names is missing below "
                    f"{str(index_prefix)!r}; restore it from a copy of the index, or index "
                    "again under another prefix."
                ) from error
            pointer = newer
    return None


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
