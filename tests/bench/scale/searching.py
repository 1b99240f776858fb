"""Search of an open generation, without encoding and HTTP."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bench.figures import Bench
from bench.scale.library import Library
from imagedex.segments import OpenGeneration

_K = 10
_THREADS = 8
_SECONDS = 10.0


def search(bench: Bench, library: Library) -> None:
    """Latency of one query after the other, recall, and queries of several threads."""
    queries = library.asked
    truth = library.exact_scores(queries, _K)[:, -1]
    started = time.perf_counter()
    generation = library.files.open(library.manifest, None)
    bench.report("generation opened in", time.perf_counter() - started, "s")
    for query in queries:
        generation.search(query[np.newaxis], [_K])
    seconds, found = [], []
    for query, least in zip(queries, truth, strict=True):
        started = time.perf_counter()
        (hits,) = generation.search(query[np.newaxis], [_K])
        seconds.append(time.perf_counter() - started)
        found.append(np.count_nonzero(hits.scores >= least - 1e-6) / _K)
    bench.at_most("search p50", float(np.percentile(seconds, 50)) * 1000, "ms", 1.5)
    bench.at_most("search p99", float(np.percentile(seconds, 99)) * 1000, "ms", 4)
    half = len(queries) // 2
    for kind, some in (("pictures", slice(None, half)), ("texts", slice(half, None))):
        milliseconds = float(np.percentile(seconds[some], 50)) * 1000
        bench.report(f"search p50, queries like {kind}", milliseconds, "ms")
        bench.at_least(f"recall@10, queries like {kind}", float(np.mean(found[some])), "", 0.99)
    rate = _queries_per_second(generation, library)
    bench.at_least(f"queries of {_THREADS} threads", rate, "per s", 1000)


def _queries_per_second(generation: OpenGeneration, library: Library) -> float:
    deadline = time.perf_counter() + _SECONDS

    def ask(first: int) -> int:
        count = 0
        while time.perf_counter() < deadline:
            query = library.asked[(first + count) % len(library.asked)]
            generation.search(query[np.newaxis], [_K])
            count += 1
        return count

    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(pool.map(ask, range(0, 100 * _THREADS, 100))) / _SECONDS
