"""Which generation follows which: each has one successor, for ever.

``CURRENT`` is replaced by a rename, and a rename asks nobody: an owner that was frozen just before
it, and wakes up when another has long published, would put the index back. So what makes a
generation count is that its manifest gets a second name, ``successors/GENERATION.json``, after the
generation that it follows. link(2) gives each name once, whatever becomes of clocks and locks, on
NFS too. From then on it is published: ``CURRENT`` only says where to begin to read, and whoever
reads it goes on from there to the last of the line.

So a claim is never taken back: another owner may have followed it already.

A name that was swept could be taken once more. What prevents it is that whoever claims looks at
the line *after* its manifest was written, and that a name is swept only when all manifests were
swept that could be linked to it: so either that look finds that the line has gone on, or the link
finds no manifest.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import structlog

from imagedex.core.errors import LeaseLost, StorageError
from imagedex.segments import layout
from imagedex.segments.durable import (
    make_directory,
    replace_file,
    storage_errors,
    sync_directory,
)
from imagedex.segments.manifest_json import decode_manifest
from imagedex.segments.pointer import Pointer, read_pointer

_log = structlog.get_logger(__name__)


def follow(index_prefix: Path, pointer: Pointer) -> Pointer:
    """Return what names the last generation of the line that goes on from a pointer's.

    Costs one look for a file that is not there, as long as ``CURRENT`` has kept up. Raises
    FileNotFoundError when the line was swept meanwhile, CorruptIndex, StorageError.
    """
    generation, last = pointer.generation, b""
    while data := _read(index_prefix, generation):
        generation, last = _generation_of(data, after=generation), data
    return _pointer_to(index_prefix, generation, last) if last else pointer


def last_of_line(index_prefix: Path, *, above: int) -> Pointer | None:
    """Return what names the last generation of the line, when that is known without ``CURRENT``.

    For a ``CURRENT`` that was put back to a generation that is kept no longer. None when nothing
    says that a generation above follows it. Raises as ``follow`` does.
    """
    newest = max(claimed_generations(index_prefix), default=0)
    data = _read(index_prefix, newest) if newest > above else b""
    if not data:
        return None
    return follow(index_prefix, _pointer_to(index_prefix, _generation_of(data, after=newest), data))


def claim(index_prefix: Path, name: str, *, before: int) -> None:
    """Make a manifest the successor of a generation, 0 for the first of all.

    It must be on the disk. When this returns it is published, whatever comes; another call for the
    same manifest does nothing. Raises LeaseLost when there is another successor, or when the
    manifest was swept; StorageError, after which ``may_be_claimed`` tells whether it is published.
    """
    path = index_prefix / layout.successor_name(before)
    make_directory(path.parent)
    with storage_errors("write", path):
        try:
            os.link(index_prefix / name, path)
        except FileNotFoundError as error:
            if not path.parent.is_dir():
                raise
            raise LeaseLost(
                f"The manifest {name!r} was swept before it was published: another owner has "
                "taken over; let it go on."
            ) from error
        except FileExistsError as error:
            # NFS may have lost the answer to a link that was made.
            if not path.samefile(index_prefix / name):
                raise LeaseLost(
                    f"Generation {before} of {str(index_prefix)!r} has a successor already: "
                    f"another owner has published, and {name!r} was given up; let the other go on."
                ) from error


def claim_all(index_prefix: Path, name: str) -> None:
    """Make a manifest the successor of each earlier generation that is there and has none.

    For an index whose line is damaged, so that nothing which was prepared before can be claimed.
    """
    generation = layout.generation_of_manifest(name) or 0
    earlier = {0, *generations_present(index_prefix)} - claimed_generations(index_prefix)
    for before in sorted(number for number in earlier if number < generation):
        claim(index_prefix, name, before=before)
    sync_claims(index_prefix)


def may_be_claimed(index_prefix: Path, name: str, *, before: int) -> bool:
    """Say whether a manifest is the successor of a generation; yes where that cannot be read."""
    path = index_prefix / layout.successor_name(before)
    try:
        return path.samefile(index_prefix / name)
    except FileNotFoundError:
        return False
    except OSError:
        return True


def require_last(index_prefix: Path, generation: int) -> None:
    """Raise LeaseLost unless a generation is the current one; 0 for none yet.

    To be called when the manifest that is to follow it is there.
    """
    try:
        pointer = read_pointer(index_prefix)
        found = None if pointer is None else follow(index_prefix, pointer).generation
    except FileNotFoundError:
        found = None  # It was swept in this moment, as older ones are.
    if found != generation:
        raise LeaseLost(
            f"Generation {generation} of {str(index_prefix)!r} is no longer the current one: "
            "another owner has published, and this one's work was given up; let the other go on."
        )


def succeed(index_prefix: Path, pointer: Pointer, *, before: int) -> None:
    """Publish a manifest that is on the disk, as the successor of a generation.

    The caller has called ``require_last`` since it is there. Raises LeaseLost when another owner
    has published, StorageError; then it may be published all the same (see ``may_be_claimed``),
    but may not outlive a power cut.
    """
    if pointer.manifest is None:
        raise ValueError("A pointer that names no manifest publishes nothing.")
    claim(index_prefix, pointer.manifest, before=before)
    is_durable = True
    try:
        sync_claims(index_prefix)
    except StorageError as error:
        is_durable = False
        _log.warning("claim_not_flushed", index_prefix=str(index_prefix), error=str(error))
    try:
        replace_file(index_prefix / layout.CURRENT, pointer.write_to)
    except StorageError as error:
        if not is_durable:
            raise
        # Readers find it by the claim, until CURRENT can be written again.
        _log.warning("pointer_left_behind", index_prefix=str(index_prefix), error=str(error))


def sync_claims(index_prefix: Path) -> None:
    """Make claims durable. Raises StorageError."""
    directory = index_prefix / layout.SUCCESSORS
    with storage_errors("flush", directory):
        sync_directory(directory)


def claimed_generations(index_prefix: Path) -> set[int]:
    """Return the generations that are known to have a successor."""
    numbers = map(layout.generation_of_successor, _names(index_prefix, layout.SUCCESSORS))
    return {number for number in numbers if number is not None}


def generations_present(index_prefix: Path) -> list[int]:
    """Return the generations that have a manifest, published or not; one may be there twice."""
    numbers = map(layout.generation_of_manifest, _names(index_prefix, layout.MANIFESTS))
    return [number for number in numbers if number is not None]


def _read(index_prefix: Path, generation: int) -> bytes:
    path = index_prefix / layout.successor_name(generation)
    try:
        # Most often it is not there, and this costs every look at the current generation.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError:
        with storage_errors("read", path):
            raise
    with storage_errors("read", path), open(descriptor, "rb") as file:
        return file.read()


def _generation_of(data: bytes, *, after: int) -> int:
    return decode_manifest(data, layout.successor_name(after)).generation


def _pointer_to(index_prefix: Path, generation: int, data: bytes) -> Pointer:
    """Return what names the manifest with this content. Raises FileNotFoundError."""
    for name in _names(index_prefix, layout.MANIFESTS):
        if layout.generation_of_manifest(name) != generation:
            continue
        path = index_prefix / name
        with storage_errors("read", path):
            # A successor's name and a manifest's are one file; in a copy of an index, two.
            try:
                is_it = path.read_bytes() == data
            except FileNotFoundError:
                is_it = False
        if is_it:
            return Pointer(name, hashlib.sha256(data).hexdigest())
    raise FileNotFoundError(index_prefix / layout.MANIFESTS / f"{generation:08d}")


def _names(index_prefix: Path, folder: str) -> list[str]:
    directory = index_prefix / folder
    with storage_errors("list", directory):
        try:
            return [f"{folder}/{path.name}" for path in directory.iterdir()]
        except FileNotFoundError:
            return []
