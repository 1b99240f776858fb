"""What chunks leave on the index's storage until it is committed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from imagedex.core.errors import CorruptIndex, FingerprintMismatch, StorageError
from imagedex.segments import layout
from imagedex.segments._parquet import ImageTable, read_made_by, read_metadata
from imagedex.segments.durable import make_directory, replace_file, storage_errors
from imagedex.segments.records import FinishedPart, Part

_LENGTH_TOLERANCE = 1e-3

_log = structlog.get_logger(__name__)


def write_part(
    index_prefix: Path, job_id: str, chunk: int, fence: int, part: Part, outcome: str = ""
) -> str:
    """Write a part file durably and atomically; return its name below the prefix.

    No part is written over: a chunk that runs again has another one. ``outcome`` is kept with it,
    for ``finished_parts``. Raises ValueError when the vectors cannot be stored, StorageError when
    the storage fails.
    """
    name = layout.part_name(job_id, chunk, fence, secrets.token_bytes(4))
    _require_valid(part)
    table = ImageTable.from_part(part)
    path = index_prefix / name
    metadata = {
        "job_id": job_id,
        "chunk": str(chunk),
        "fence": str(fence),
        "fingerprint": part.fingerprint,
        "dim": str(part.vectors.shape[1]),
        "outcome": outcome,
    }
    make_directory(path.parent)
    try:
        replace_file(path, lambda file: table.write_to(file, metadata))
    except StorageError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        # A sweep of the controller has found the directory empty, in just this moment.
        make_directory(path.parent)
        replace_file(path, lambda file: table.write_to(file, metadata))
    return name


def finished_parts(index_prefix: Path, job_id: str) -> list[FinishedPart]:
    """Return the parts of a job that its chunks have left, by chunk, the newest fence first.

    What is no whole part file is passed over. Raises StorageError, ValueError for a job id that
    can name no directory.
    """
    directory = layout.parts_name(job_id)
    found = []
    with storage_errors("list", index_prefix / directory):
        try:
            names = [f"{directory}/{entry.name}" for entry in os.scandir(index_prefix / directory)]
        except FileNotFoundError:
            return []
    for name in names:
        numbers = layout.chunk_and_fence_of_part(name)
        if numbers is None:
            continue
        chunk, fence = numbers
        try:
            metadata = read_metadata(index_prefix / name)
        except CorruptIndex as error:
            _log.warning("part_file_not_read", file=name, error=str(error))
            continue
        found.append(
            FinishedPart(
                name=name,
                chunk=chunk,
                fence=fence,
                fingerprint=metadata.get("fingerprint", ""),
                outcome=metadata.get("outcome", ""),
            )
        )
    return sorted(found, key=lambda part: (part.chunk, -part.fence, part.name))


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part file that can be published, and what it holds: at least one image."""

    path: Path
    images: ImageTable


def read_parts(
    index_prefix: Path, names: Sequence[str], *, fingerprint: str, dim: int
) -> list[StoredPart]:
    """Return what part files hold, in order, without those that hold nothing.

    Raises CorruptIndex for a part that is missing, damaged or of another dim,
    FingerprintMismatch for one of another model, and ValueError when an image is in them twice.
    """
    parts = []
    for name in names:
        path = part_path(index_prefix, name)
        images, found = read_made_by(path)
        if found != fingerprint:
            raise FingerprintMismatch(
                f"Part file {name!r} has vectors of {found or 'an unnamed model'!r} but the commit "
                f"is one of {fingerprint!r}; run its chunk again."
            )
        if images.dim != dim:
            raise CorruptIndex(
                f"Part file {name!r} has vectors of length {images.dim} but the commit expects "
                f"{dim}; run its chunk again."
            )
        if images.rows:
            parts.append(StoredPart(path, images))
    _require_unique(path for part in parts for path in part.images.image_paths())
    return parts


def remove_parts(index_prefix: Path, job_id: str) -> None:
    """Delete all that a job has left among the parts. Raises StorageError, ValueError."""
    directory = index_prefix / layout.parts_name(job_id)
    with storage_errors("delete", directory):
        if directory.is_dir():
            shutil.rmtree(directory)


def part_path(index_prefix: Path, name: str) -> Path:
    """Return where a part file lies. Raises ValueError when the name is not one of a part."""
    if layout.job_of_part(name) is None:
        raise ValueError(f"{name!r} does not name a part file.")
    return index_prefix / name


def _require_valid(part: Part) -> None:
    vectors = part.vectors
    if vectors.ndim != 2 or vectors.dtype != np.float32 or vectors.shape[1] == 0:
        raise ValueError(
            f"The vectors of a part are {vectors.dtype} of shape {vectors.shape}, expected "
            "float32 of shape (images, dim)."
        )
    if len(vectors) != len(part.facts):
        raise ValueError(f"A part has {len(part.facts)} images but {len(vectors)} vectors.")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    # Not-a-number fails this comparison too.
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _LENGTH_TOLERANCE))
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(
            f"The vector of {part.facts[first].image_path!r} has length {lengths[first]}, "
            "expected 1; normalise vectors before they are stored."
        )
    _require_unique(fact.image_path for fact in part.facts)


def _require_unique(image_paths: Iterable[str]) -> None:
    repeated = [path for path, times in Counter(image_paths).items() if times > 1]
    if repeated:
        raise ValueError(f"{len(repeated)} images are given twice, the first is {repeated[0]!r}.")
