"""The durable queue of jobs."""

from typing import TYPE_CHECKING

from imagedex.jobs.cron import CronTimes
from imagedex.jobs.interfaces import IdempotencyKey, JobStore, NewJob, Page
from imagedex.jobs.records import (
    Chunk,
    ChunkAction,
    ChunkDone,
    ChunkState,
    Job,
    JobFailure,
    JobKind,
    JobStatus,
    Lane,
    Lease,
    PlannedChunk,
    Priority,
    ScanFindings,
    WorkerShare,
)
from imagedex.jobs.run import JobCancelled, JobPaused, JobRun, JobYielded
from imagedex.jobs.runner import Handler, JobRunner
from imagedex.jobs.schedules import Schedule, Scheduler

if TYPE_CHECKING:
    from imagedex.jobs._sql import SqlJobStore

__all__ = [
    "Chunk",
    "ChunkAction",
    "ChunkDone",
    "ChunkState",
    "CronTimes",
    "Handler",
    "IdempotencyKey",
    "Job",
    "JobCancelled",
    "JobFailure",
    "JobKind",
    "JobPaused",
    "JobRun",
    "JobRunner",
    "JobStatus",
    "JobStore",
    "JobYielded",
    "Lane",
    "Lease",
    "NewJob",
    "Page",
    "PlannedChunk",
    "Priority",
    "ScanFindings",
    "Schedule",
    "Scheduler",
    "SqlJobStore",
    "WorkerShare",
]


def __getattr__(name: str) -> object:
    """Import the adapter when it is asked for: workers know no database."""
    if name != "SqlJobStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from imagedex.jobs._sql import SqlJobStore

    return SqlJobStore
