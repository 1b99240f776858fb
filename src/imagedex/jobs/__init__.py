"""The durable queue of jobs."""

from imagedex.jobs._sql import SqlJobStore
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
