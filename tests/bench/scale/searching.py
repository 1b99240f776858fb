"""Search of an open generation, without encoding and HTTP."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from bench.figures import Bench
from bench.scale.library import Library
from imagedex.segments import ImageFilter, OpenGeneration
from support.vectors import made_up_facts

_K = 10
_THREADS = 8
_SECONDS = 10.0
_FILTERED_SHARES = (0.01, 0.5)


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
    bench.report("search p50", float(np.percentile(seconds, 50)) * 1000, "ms")
    for kind, some in kinds(len(queries)).items():
        what = f"queries like {kind}"
        for percentile, most in ((50, 1.5), (99, 4)):
            milliseconds = float(np.percentile(seconds[some], percentile)) * 1000
            bench.at_most(f"search p{percentile}, {what}", milliseconds, "ms", most)
        bench.at_least(f"recall@10, {what}", float(np.mean(found[some])), "", 0.99)
        rate = _queries_per_second(generation, queries[some])
        bench.at_least(f"{_THREADS} threads, {what}", rate, "per s", 1000)
    rate = _queries_per_second(generation, queries)
    bench.report(f"queries of {_THREADS} threads", rate, "per s")


def kinds(queries: int) -> dict[str, slice]:
    """Return which of the queries of a library are of each kind."""
    return {"pictures": slice(None, queries // 2), "texts": slice(queries // 2, None)}


def search_with_filters(bench: Bench, library: Library) -> None:
    """Latency and recall with filters that allow a share of the images."""
    generation = library.files.open(library.manifest, None)
    for share in _FILTERED_SHARES:
        rows = int(share * library.rows)
        (after,) = made_up_facts(rows, 1)  # The first image that the filter leaves out.
        image_filter = ImageFilter(modified_before_ns=after.stamp.mtime_ns)
        generation.prepare(image_filter)
        seconds, found = [], []
        truth = library.exact_scores(library.asked, _K, rows=rows)[:, -1]
        for query, least in zip(library.asked, truth, strict=True):
            started = time.perf_counter()
            (hits,) = generation.search(query[np.newaxis], [_K], [image_filter])
            seconds.append(time.perf_counter() - started)
            found.append(np.count_nonzero(hits.scores >= least - 1e-6) / _K)
        what = f"search with a filter that allows {share:.0%}"
        bench.at_most(f"{what}, p50", float(np.percentile(seconds, 50)) * 1000, "ms", 5)
        bench.at_least(f"{what}, recall@10", float(np.mean(found)), "", 0.99)
        for kind, some in kinds(len(seconds)).items():
            milliseconds = float(np.percentile(seconds[some], 50)) * 1000
            bench.report(f"{what}, p50, queries like {kind}", milliseconds, "ms")


def _queries_per_second(generation: OpenGeneration, queries: NDArray[np.float32]) -> float:
    deadline = time.perf_counter() + _SECONDS

    def ask(first: int) -> int:
        count = 0
        while time.perf_counter() < deadline:
            query = queries[(first + count) % len(queries)]
            generation.search(query[np.newaxis], [_K])
            count += 1
        return count

    starts = range(0, len(queries), -(-len(queries) // _THREADS))
    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(pool.map(ask, starts)) / _SECONDS
