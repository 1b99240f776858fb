"""The flow of images into an index: plan, embed, commit, publish."""

from imagedex.indexing.absences import RemovalRules
from imagedex.indexing.chunk import ChunkTask, WorkerSetup, embed_chunk
from imagedex.indexing.flow import IndexFlow
from imagedex.indexing.interfaces import Indexing, IndexStats, JobReport, WorkerReport
from imagedex.indexing.locations import IndexLocations
from imagedex.indexing.publishing import Publisher, missing_index
from imagedex.indexing.service import IndexingService

__all__ = [
    "ChunkTask",
    "IndexFlow",
    "IndexLocations",
    "IndexStats",
    "Indexing",
    "IndexingService",
    "JobReport",
    "Publisher",
    "RemovalRules",
    "WorkerReport",
    "WorkerSetup",
    "embed_chunk",
    "missing_index",
]
