"""The durable queue of jobs."""

from imagedex.jobs._sql import SqlJobStore
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
    Lease,
    PlannedChunk,
    Priority,
    WorkerShare,
)
from imagedex.jobs.run import JobCancelled, JobRun, JobYielded
from imagedex.jobs.runner import Handler, JobRunner

__all__ = [
    "Chunk",
    "ChunkAction",
    "ChunkDone",
    "ChunkState",
    "Handler",
    "IdempotencyKey",
    "Job",
    "JobCancelled",
    "JobFailure",
    "JobKind",
    "JobRun",
    "JobRunner",
    "JobStatus",
    "JobStore",
    "JobYielded",
    "Lease",
    "NewJob",
    "Page",
    "PlannedChunk",
    "Priority",
    "SqlJobStore",
    "WorkerShare",
]
