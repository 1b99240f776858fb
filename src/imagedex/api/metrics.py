"""Figures for Prometheus, in a registry of their own for each API."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from imagedex.core.errors import ImagedexError
from imagedex.indexing.interfaces import Indexing
from imagedex.jobs.records import JobStatus

# From a cached query to a request that waits for a busy machine.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_log = structlog.get_logger(__name__)


class Metrics:
    """What is counted while requests are served. Safe to use from several threads."""

    def __init__(self, indexing: Indexing, *, is_leader: Callable[[], bool]) -> None:
        self.registry = CollectorRegistry()
        leader = Gauge(
            "imagedex_leader",
            "1 when this server runs the jobs of its database, 0 when it stands by.",
            registry=self.registry,
        )
        leader.set_function(is_leader)
        self.requests = Counter(
            "imagedex_http_requests",
            "Requests that were answered.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "imagedex_http_request_seconds",
            "Time from the head of a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.query_seconds = Histogram(
            "imagedex_query_seconds",
            "Time that answering a query took, without HTTP.",
            ["cached"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(_IndexCollector(indexing))


class _IndexCollector(Collector):
    """Reads the state of the default index and of the jobs at each scrape."""

    def __init__(self, indexing: Indexing) -> None:
        self._indexing = indexing

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not read the database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield the figures; a part that cannot be read is left out and reported as unreadable."""
        readable = GaugeMetricFamily(
            "imagedex_state_readable", "1 when the part could be read, else 0.", labels=["part"]
        )
        for part, read in (("index", self._read_index), ("jobs", self._read_jobs)):
            try:
                families = read()
            except ImagedexError as error:
                # The other figures matter most when something is wrong, so the scrape goes on.
                _log.warning("metrics_unreadable", part=part, exc_info=error)
                readable.add_metric([part], 0)
            else:
                readable.add_metric([part], 1)
                yield from families
        yield readable

    def _read_index(self) -> list[Metric]:
        stats = self._indexing.stats()
        images = GaugeMetricFamily(
            "imagedex_images", "Images of the default index.", labels=["state"]
        )
        images.add_metric(["indexed"], stats.num_images)
        images.add_metric(["failed"], stats.num_failed)
        size = GaugeMetricFamily(
            "imagedex_index_bytes", "Size of the default index on disk.", labels=["kind"]
        )
        size.add_metric(["faiss"], stats.faiss_bytes)
        size.add_metric(["parquet"], stats.parquet_bytes)
        generation = GaugeMetricFamily(
            "imagedex_generation",
            "Number of the default index's current generation.",
            stats.generation,
        )
        return [images, size, generation]

    def _read_jobs(self) -> list[Metric]:
        jobs = GaugeMetricFamily("imagedex_jobs", "Jobs by status.", labels=["status"])
        for status in JobStatus:
            page = self._indexing.list_jobs(status=status, limit=1, cursor=None)
            jobs.add_metric([status.value], page.total)
        return [jobs]
