"""How the files below an index prefix are named.

::

    CURRENT                            which manifest counts; replaced by rename
    LOCK, LOCK-TERM                    held while a generation is published
    PLACE                              a random name, by which hosts know that they see this one
    manifests/GENERATION-FENCE.json    immutable
    successors/GENERATION.json         the manifest of what follows a generation, by a second name
    segments/NUMBER-FENCE.parquet      immutable, the durable asset
    segments/NUMBER-FENCE.faiss        immutable, can be made again from the Parquet file;
                                       small segments have none
    segments/NUMBER-FENCE.ivf          the same, of large segments only
    tombstones/GENERATION-FENCE.parquet  immutable
    parts/JOB/CHUNK-FENCE-RUN.parquet  what a run of a chunk left, until it is committed
    parts/JOB/merge-FENCE/            a segment that a merge builds, laid out as an index of its own

Every name carries the fence of the owner that wrote it, so an owner that was replaced and wakes
up cannot write over the files of its successor. A chunk may run twice for one owner, as when a host
that was cut off goes on, so each run has a part of its own. While a file is being written its name
has a random part and the suffix ``.tmp``.
"""

from __future__ import annotations

import re

CURRENT = "CURRENT"
LOCK = "LOCK"
PLACE = "PLACE"
MANIFESTS = "manifests"
SUCCESSORS = "successors"
SEGMENTS = "segments"
TOMBSTONES = "tombstones"
PARTS = "parts"
TEMPORARY_SUFFIX = ".tmp"

_MANIFEST = re.compile(r"manifests/(\d{8,18})-(\d{1,18})\.json")
_SUCCESSOR = re.compile(r"successors/(\d{8,18})\.json")
_SEGMENT = re.compile(r"segments/(\d{8,18})-\d{1,18}\.(parquet|faiss|ivf)")
_TOMBSTONE = re.compile(r"tombstones/(\d{8,18})-\d{1,18}\.parquet")
# Also of files that are half written, and of what chunks and merges leave.
_FENCED = re.compile(
    r"(?:(?:manifests|segments|tombstones)/\d{8,18}-(\d{1,18})\.[a-z]+"
    r"|parts/[A-Za-z0-9_-]{1,100}/(?:\d{6,18}-(\d{1,18})(?:-[0-9a-f]{8})?\.parquet|merge-(\d{1,18})))"
    r"(?:\.[0-9a-f]+\.tmp)?"
)
_LOCK_OF_TERM = re.compile(r"LOCK-(\d{1,18})")
_PART = re.compile(r"parts/([A-Za-z0-9_-]{1,100})/(\d{6,18})-(\d{1,18})(?:-[0-9a-f]{8})?\.parquet")
_STAGING = re.compile(r"parts/([A-Za-z0-9_-]{1,100})/merge-\d{1,18}")
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


def manifest_name(generation: int, fence: int) -> str:
    """Name the manifest of a generation."""
    return f"{MANIFESTS}/{generation:08d}-{fence}.json"


def successor_name(generation: int) -> str:
    """Name what says which generation follows one; 0 is none yet."""
    return f"{SUCCESSORS}/{generation:08d}.json"


def lock_name(term: int) -> str:
    """Name the lock of those who publish in a term."""
    return f"{LOCK}-{term}" if term else LOCK


def parquet_name(segment: int, fence: int) -> str:
    """Name the Parquet file of a segment."""
    return f"{SEGMENTS}/{segment:08d}-{fence}.parquet"


def faiss_name(segment: int, fence: int) -> str:
    """Name the Faiss file of a segment."""
    return f"{SEGMENTS}/{segment:08d}-{fence}.faiss"


def ivf_name(segment: int, fence: int) -> str:
    """Name the file of the inverted lists of a segment."""
    return f"{SEGMENTS}/{segment:08d}-{fence}.ivf"


def tombstone_name(generation: int, fence: int) -> str:
    """Name the file of the tombstones that a generation adds."""
    return f"{TOMBSTONES}/{generation:08d}-{fence}.parquet"


def part_name(job_id: str, chunk: int, fence: int, run: bytes) -> str:
    """Name the part file of a chunk's run, which has four bytes of its own.

    Raises ValueError for what cannot be part of a name.
    """
    directory = parts_name(job_id)
    if chunk < 0 or fence < 0:
        raise ValueError(f"Chunk {chunk} and fence {fence} must not be negative.")
    return f"{directory}/{chunk:06d}-{fence}-{run.hex()}.parquet"


def parts_name(job_id: str) -> str:
    """Name the directory of a job's parts. Raises ValueError as ``part_name`` does."""
    if not _JOB_ID.fullmatch(job_id):
        raise ValueError(f"Job id {job_id!r} cannot name a directory; expected letters and digits.")
    return f"{PARTS}/{job_id}"


def staging_name(job_id: str, fence: int) -> str:
    """Name the directory in which a merge builds. Raises ValueError as ``part_name`` does."""
    return f"{parts_name(job_id)}/merge-{fence}"


def is_staging(name: str) -> bool:
    """Say whether a name is that of a directory in which a merge builds."""
    return _STAGING.fullmatch(name) is not None


def generation_of_manifest(name: str) -> int | None:
    """Return the generation that a manifest's name tells, or None when it names no manifest."""
    match = _MANIFEST.fullmatch(name)
    return int(match[1]) if match else None


def generation_of_successor(name: str) -> int | None:
    """Return the generation whose successor a name stands for, or None for other names."""
    match = _SUCCESSOR.fullmatch(name)
    return int(match[1]) if match else None


def term_of_lock(name: str) -> int | None:
    """Return the term whose lock a name stands for, or None for other names."""
    match = _LOCK_OF_TERM.fullmatch(name)
    return int(match[1]) if match else None


def number_of_segment(name: str) -> int | None:
    """Return the number that the name of a segment's file tells, or None for other names."""
    match = _SEGMENT.fullmatch(name)
    return int(match[1]) if match else None


def generation_of_tombstones(name: str) -> int | None:
    """Return the generation that a tombstone file's name tells, or None for other names."""
    match = _TOMBSTONE.fullmatch(name)
    return int(match[1]) if match else None


def fence_of(name: str) -> int | None:
    """Return the fence that a name tells, also of a half-written file, or None for other names."""
    match = _FENCED.fullmatch(name)
    return int(match[match.lastindex or 0]) if match else None


def chunk_and_fence_of_part(name: str) -> tuple[int, int] | None:
    """Return chunk and fence that a part's name tells, or None when it names no part."""
    match = _PART.fullmatch(name)
    return (int(match[2]), int(match[3])) if match else None


def job_of_part(name: str) -> str | None:
    """Return the job that a part's name tells, or None when it names no part."""
    match = _PART.fullmatch(name)
    return match[1] if match else None
