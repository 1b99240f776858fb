"""Jobs and their parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any

from imagedex.core.images import ImageFailure


class Lane(StrEnum):
    """Which jobs of an index wait for each other: one job runs in each of its lanes."""

    FLOW = "flow"  # What brings images in and takes them out.
    UPKEEP = "upkeep"  # What may take long, and until its end changes nothing that is found.


class JobKind(StrEnum):
    """What a job does."""

    FULL = "full"  # Scan a directory and index what is new or changed.
    INCREMENTAL = "incremental"  # Index, or remove, the images that a notifier named.
    REBUILD = "rebuild"  # Make one segment of all that an index has.
    IMPORT = "import"  # Adopt the vectors of an old index.
    BACKUP = "backup"  # Copy the database; of no index, so it is the default one's.
    SNAPSHOT = "snapshot"  # Keep the current generation of an index.
    RESTORE = "restore"  # Make a snapshot the current generation.
    CHANGE_MODEL = "change_model"  # Embed all that an index has with another model.

    @property
    def lane(self) -> Lane:
        """The lane in which such jobs run."""
        return Lane.UPKEEP if self in _UPKEEP_KINDS else Lane.FLOW


_UPKEEP_KINDS = (JobKind.REBUILD, JobKind.BACKUP, JobKind.SNAPSHOT, JobKind.CHANGE_MODEL)


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class Priority(IntEnum):
    """What goes first; a job that waits long rises (see the store)."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


@dataclass(frozen=True, slots=True)
class Job:
    """A durable unit of requested work."""

    job_id: str
    index_id: int
    kind: JobKind
    status: JobStatus
    priority: Priority
    request: Mapping[str, Any]  # What was asked for, as JSON; the kind says what is in it.
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    cancel_requested: bool
    is_planned: bool  # Its chunks are stored.
    total_images: int  # All images that it covers, unchanged ones included.
    processed_images: int  # Those that are settled: unchanged, embedded, removed, failed.
    failed_images: int  # Those among them that failed.


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a job, and to publish for its lane of its index, until it expires."""

    job: Job
    owner: str
    fence: int  # Rises with each lease of the same index, whatever the lane.


class ChunkAction(StrEnum):
    """What is to be done with a chunk's images."""

    EMBED = "embed"  # Workers read and embed them.
    REMOVE = "remove"  # They are gone: their rows get tombstones at the next commit.


class ChunkState(StrEnum):
    """Where a chunk stands."""

    PLANNED = "planned"
    EMBEDDED = "embedded"  # Its part file is on the index's storage.
    COMMITTED = "committed"  # Its images are in a published generation.


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """A chunk of a plan, before it has a number."""

    action: ChunkAction
    image_paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some images of a job: the unit of dispatch and of checkpoint."""

    number: int  # From 0 within the job.
    action: ChunkAction
    state: ChunkState
    image_paths: tuple[str, ...]
    part: str | None  # Name of the part file below the index prefix; None when there is none.


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """What a worker made of a chunk."""

    number: int
    part: str | None  # None when no image of the chunk could be embedded.
    indexed: int
    failures: tuple[ImageFailure, ...]
    worker_id: str
    host: str
    seconds: float  # The worker's own time, without loading a model and waiting for it.
    reused: int = 0  # Of the indexed ones: those whose vector was known by their content.


@dataclass(frozen=True, slots=True)
class ScanFindings:
    """What a scan found, in numbers of images, and what was answered about removals."""

    added: int = 0  # Not known before.
    changed: int = 0  # Of another size or mtime than before, or failed and tried again.
    unchanged: int = 0
    unsettled: int = 0  # Still being written: left for the next scan.
    missing: int = 0  # Known, and not found any more; removed when their time of grace is over.
    moved: int = 0  # Missing ones that left the index, since their content is indexed elsewhere.
    removed: int = 0  # Missing ones that left the index.
    removals_asked: int | None = None  # While the job is paused: how many are to be allowed.
    removals_allowed: int | None = None  # None while nobody has answered, 0 after a refusal.


@dataclass(frozen=True, slots=True)
class WorkerShare:
    """What one worker did for a job."""

    worker_id: str
    host: str
    images_processed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class JobFailure:
    """An image that a job could not index."""

    image_path: str
    reason: str
    detail: str
    attempts: int
