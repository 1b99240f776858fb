"""Run chunks on workers: the only room that knows Dask.

Importing it is cheap; Dask itself is imported when an engine starts.
"""

from imagedex.engine._dask_engine import DaskEngine
from imagedex.engine.hosts import ClusterPlan, HostReport, HostSpec, HostState
from imagedex.engine.interfaces import (
    ChunkFunction,
    Engine,
    Seat,
    WorkerContext,
    WorkerInfo,
    WorkerStatus,
)

__all__ = [
    "ChunkFunction",
    "ClusterPlan",
    "DaskEngine",
    "Engine",
    "HostReport",
    "HostSpec",
    "HostState",
    "Seat",
    "WorkerContext",
    "WorkerInfo",
    "WorkerStatus",
]
