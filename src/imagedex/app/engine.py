"""The engine that the settings ask for: workers here, and on the hosts of the inventory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imagedex.app.foundations import Foundations
from imagedex.engine import ChunkFunction, ClusterPlan, DaskEngine
from imagedex.engine.inventory import read_inventory
from imagedex.indexing import check_host, needs_of
from imagedex.settings import Settings


def make_engine(base: Foundations) -> DaskEngine:
    """Return the engine, not started.

    Raises SettingsError for an inventory that cannot be used, and when the extra for other hosts is
    not installed.
    """
    settings = base.settings
    local = settings.engine.local_workers
    workers = settings.indexing.workers if local is None else local
    if settings.engine.inventory is None:
        return DaskEngine(
            workers=max(1, workers),
            threads_per_worker=settings.indexing.threads_per_worker,
            log_dir=settings.home / "logs",
            no_worker_seconds=settings.indexing.no_worker_seconds,
            stall_seconds=settings.indexing.stall_seconds,
            silent_seconds=settings.engine.silent_seconds,
        )

    def check() -> tuple[ChunkFunction[Any, None], Any]:
        return check_host, needs_of(base.image_roots, base.model)

    return DaskEngine(
        workers=workers,
        threads_per_worker=settings.indexing.threads_per_worker,
        log_dir=settings.home / "logs",
        no_worker_seconds=settings.indexing.no_worker_seconds,
        stall_seconds=settings.indexing.stall_seconds,
        silent_seconds=settings.engine.silent_seconds,
        cluster=_plan(settings),
        hosts=read_inventory(settings.engine.inventory),
        check=check,
    )


def _plan(settings: Settings) -> ClusterPlan:
    engine = settings.engine
    return ClusterPlan(
        authority=settings.home / "tls",
        known_hosts=engine.ssh_known_hosts or Path.home() / ".ssh" / "known_hosts",
        ssh_keys=engine.ssh_keys,
        listen_host=engine.listen_host,
        listen_port=engine.listen_port,
        contact_address=engine.contact_address,
        worker_ports=engine.worker_ports.replace("-", ":"),
        models=settings.models_directory,
    )
