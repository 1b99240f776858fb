"""A real server on the index: start, memory, queries over HTTP."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

from bench.figures import Bench
from bench.load import Latencies, measure, post_request
from bench.scale import stand_in
from bench.scale.library import Library
from support.server import ServerProcess

_CLIENTS = 8
_STARTS = 3
_QUERIES = 1000
_MORE_QUERIES = 5000


def serve(bench: Bench, library: Library) -> None:
    """Start to ready, queries over HTTP, and memory after 1,000 of them."""
    server = server_on(bench, library)
    seconds = []
    for _ in range(_STARTS):
        started = time.monotonic()
        server.start()
        seconds.append(time.monotonic() - started)
        if len(seconds) < _STARTS:
            server.stop()
    bench.at_most("start to ready", statistics.median(seconds), "s", 5)
    try:
        latencies = _ask(server, 1, count=_QUERIES)
        anonymous, resident = _memory(server.pid)
        bench.at_most(f"anonymous memory after {_QUERIES:,} queries", anonymous / 1e9, "GB", 0.8)
        bench.at_most(f"resident memory after {_QUERIES:,} queries", resident / 1e9, "GB", 1.5)
        bench.report("query over HTTP p50", latencies.milliseconds(50), "ms")
        bench.report("query over HTTP p99", latencies.milliseconds(99), "ms")
        latencies = _ask(server, _CLIENTS, count=_MORE_QUERIES)
        rate = len(latencies.seconds) * _CLIENTS / sum(latencies.seconds)
        bench.report(f"queries over HTTP of {_CLIENTS} clients", rate, "per s")
        anonymous, resident = _memory(server.pid)
        bench.report(
            f"resident memory after {_QUERIES + _MORE_QUERIES:,} queries", resident / 1e9, "GB"
        )
    finally:
        server.stop()


def server_on(bench: Bench, library: Library, *image_roots: Path) -> ServerProcess:
    """Return a server of the index, not started yet, whose texts are numbers of queries."""
    vectors = bench.scratch / "queries.npy"
    np.save(vectors, library.asked)
    environment = stand_in.offer(bench.scratch / "packages", vectors)
    return ServerProcess(library.home, image_roots, environment)


def _ask(server: ServerProcess, clients: int, *, count: int) -> Latencies:
    numbers = iter(range(count))
    left = count

    def request() -> bytes:
        nonlocal left
        left -= 1
        # A number beyond the vectors means one of them, and is not in the cache of answers.
        text = f"{next(numbers, 0) + 10_000 * clients}"
        return post_request("/api/v1/query", {"text": text, "top_k": 10})

    latencies = measure(server.port, [request] * clients, until=lambda: left <= 0)
    assert latencies.failed == 0
    return latencies


def _memory(pid: int) -> tuple[int, int]:
    """Return the anonymous and all resident bytes of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    return kilobytes["Anonymous"] * 1024, kilobytes["Rss"] * 1024
