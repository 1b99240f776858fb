"""The flow of images into an index: plan, embed, commit, publish."""

from imagedex.indexing.absences import RemovalRules
from imagedex.indexing.changing import ModelChange, ModelChanger
from imagedex.indexing.chunk import ChunkTask, WorkerSetup, embed_chunk
from imagedex.indexing.flow import IndexFlow
from imagedex.indexing.hosting import check_host, needs_of
from imagedex.indexing.interfaces import Indexing, IndexStats, JobReport, WorkerReport
from imagedex.indexing.locations import IndexLocations
from imagedex.indexing.merging import MergePolicy, Merger, new_rebuild
from imagedex.indexing.pace import Pace
from imagedex.indexing.publishing import Publisher, jobs_with_parts
from imagedex.indexing.reconciling import Reconciler, missing_index
from imagedex.indexing.sealing import Seals
from imagedex.indexing.service import IndexingService
from imagedex.indexing.turns import IndexTurns

__all__ = [
    "ChunkTask",
    "IndexFlow",
    "IndexLocations",
    "IndexStats",
    "IndexTurns",
    "Indexing",
    "IndexingService",
    "JobReport",
    "MergePolicy",
    "Merger",
    "ModelChange",
    "ModelChanger",
    "Pace",
    "Publisher",
    "Reconciler",
    "RemovalRules",
    "Seals",
    "WorkerReport",
    "WorkerSetup",
    "check_host",
    "embed_chunk",
    "jobs_with_parts",
    "missing_index",
    "needs_of",
    "new_rebuild",
]
