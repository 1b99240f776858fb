"""What the suites of the job store are made with."""

from __future__ import annotations

from imagedex.core.images import FailureReason, ImageFailure
from imagedex.jobs import ChunkAction, ChunkDone, JobKind, NewJob, PlannedChunk, Priority


class ManualClock:
    """A clock that stands until it is moved."""

    def __init__(self, seconds: float = 1_763_123_696.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Move on."""
        self.seconds += seconds


def make_new_job(
    index_id: int, dedupe_key: str = "request", *, priority: Priority = Priority.NORMAL
) -> NewJob:
    """Return a job to submit."""
    return NewJob(index_id, JobKind.FULL, {"image_dir": "/photos"}, priority, dedupe_key)


def make_plan(*chunks: str) -> list[PlannedChunk]:
    """Return chunks to embed, each given as its paths with spaces between."""
    return [PlannedChunk(ChunkAction.EMBED, tuple(chunk.split())) for chunk in chunks]


def make_failures(paths: str) -> tuple[ImageFailure, ...]:
    """Return failures of these paths."""
    return tuple(ImageFailure(path, FailureReason.DAMAGED, "It broke.") for path in paths.split())


def make_done(number: int, *, indexed: int = 2, failed: str = "", worker: str = "w1") -> ChunkDone:
    """Return what a worker made of a chunk."""
    failures = make_failures(failed)
    part = f"parts/{number}" if indexed else None
    return ChunkDone(number, part, indexed, failures, worker, "host", seconds=0.5)
