"""What a worker made of a chunk, as its part file keeps it, and taking it up after a restart.

A chunk whose part was written just before the controller died was paid for: the next run of the job
records what the file says, and embeds nothing of it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import structlog

from imagedex.core.errors import CorruptIndex, OutsideImageRoots
from imagedex.core.images import FailureReason, FileStamp, ImageFailure
from imagedex.ingest import ImageRoots, stamp_now
from imagedex.jobs import Chunk, ChunkDone
from imagedex.segments import FinishedPart, IndexFiles

_VERSION = 1

_log = structlog.get_logger(__name__)


def outcome_of(done: ChunkDone, image_paths: Sequence[str]) -> str:
    """Return what a part file says of its chunk, all but the part's own name."""
    return json.dumps(
        {
            "version": _VERSION,
            "images": digest_of(image_paths),
            "indexed": done.indexed,
            "failures": [_failure_values(failure) for failure in done.failures],
            "worker_id": done.worker_id,
            "host": done.host,
            "seconds": done.seconds,
            "reused": done.reused,
        },
        separators=(",", ":"),
    )


def digest_of(image_paths: Sequence[str]) -> str:
    """Return what tells a chunk's images from those of any other, in their order."""
    return hashlib.sha256("\0".join(image_paths).encode()).hexdigest()


def adopt(
    files: IndexFiles,
    job_id: str,
    chunks: Iterable[Chunk],
    *,
    fingerprint: str,
    image_roots: ImageRoots,
    may_have_changed: bool = False,
) -> list[ChunkDone]:
    """Return what was made of chunks that are still planned, as far as their parts are there.

    A part counts that has vectors of this model and of these very images, all still allowed; of
    several that of the newest fence. Each file must be what was read of it, unless it
    ``may_have_changed``: since the part was written another job can have published a newer
    picture, or its removal. Raises StorageError.
    """
    by_number = {chunk.number: chunk for chunk in chunks}
    adopted: dict[int, ChunkDone] = {}
    for part in files.finished_parts(job_id):
        chunk = by_number.get(part.chunk)
        if chunk is None or part.chunk in adopted or part.fingerprint != fingerprint:
            continue
        done = _done_of(part, chunk)
        if (
            done is not None
            and _are_allowed(chunk.image_paths, image_roots)
            and (may_have_changed or _is_unchanged(files, part, done))
        ):
            adopted[part.chunk] = done
    if adopted:
        _log.info("chunks_adopted", job_id=job_id, chunks=len(adopted))
    return list(adopted.values())


def _done_of(part: FinishedPart, chunk: Chunk) -> ChunkDone | None:
    """Return what a part says, if it says it in our words and of this chunk."""
    try:
        said = json.loads(part.outcome)
        if said["version"] != _VERSION or said["images"] != digest_of(chunk.image_paths):
            return None
        return ChunkDone(
            number=part.chunk,
            part=part.name,
            indexed=int(said["indexed"]),
            failures=tuple(_failure_of(values) for values in said["failures"]),
            worker_id=str(said["worker_id"]),
            host=str(said["host"]),
            seconds=float(said["seconds"]),
            reused=int(said["reused"]),
        )
    except (ValueError, KeyError, TypeError):
        # Of another version, or of a hand that is not ours: the chunk is embedded again.
        return None


def _is_unchanged(files: IndexFiles, part: FinishedPart, done: ChunkDone) -> bool:
    """Say whether all files of a chunk are as they were when the worker read them."""
    try:
        facts = files.read_part_facts(part.name)
    except CorruptIndex:
        return False
    read = {failure.image_path: failure.stamp for failure in done.failures}
    read |= {one.image_path: one.stamp for one in facts}
    return all(stamp is not None and stamp == stamp_now(path) for path, stamp in read.items())


def _are_allowed(image_paths: Sequence[str], image_roots: ImageRoots) -> bool:
    try:
        for path in image_paths:
            image_roots.root_of(path)
    except OutsideImageRoots:
        return False
    return True


def _failure_values(failure: ImageFailure) -> dict[str, Any]:
    stamp = failure.stamp
    return {
        "image_path": failure.image_path,
        "reason": failure.reason.value,
        "detail": failure.detail,
        "stamp": None if stamp is None else [stamp.size, stamp.mtime_ns],
    }


def _failure_of(values: dict[str, Any]) -> ImageFailure:
    stamp = values["stamp"]
    return ImageFailure(
        str(values["image_path"]),
        FailureReason(values["reason"]),
        str(values["detail"]),
        None if stamp is None else FileStamp(*map(int, stamp)),
    )
