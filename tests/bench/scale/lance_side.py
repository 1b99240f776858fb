"""LanceDB's side of the comparison. Needs lancedb and numpy, and nothing of Imagedex.

Usage: lance_side.py FOLDER, with ``vectors.npy`` and ``queries.npy`` in it. Prints a line of JSON:
figures as pairs of value and unit, and the rows that it found.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

K, THREADS, SECONDS, APPENDED, TIMES = 10, 8, 10.0, 1000, 5
PROBES, REFINE = 20, 10


def main() -> None:
    """Measure and print."""
    folder = Path(sys.argv[1])
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    queries = np.load(folder / "queries.npy")
    rows, dim = vectors.shape
    table = lancedb.connect(folder / "db").create_table(
        "vectors", data=batches(vectors), schema=schema(dim)
    )
    started = time.perf_counter()
    table.create_index(
        metric="dot", vector_column_name="vector", index_type="IVF_RQ",
        num_partitions=max(1, round(4 * rows**0.5)),
    )  # fmt: skip
    figures: dict[str, Any] = {"index made": (time.perf_counter() - started, "s")}
    for query in queries[:200]:
        ask(table, query)
    seconds, found = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(ask(table, query))
        seconds.append(time.perf_counter() - started)
    figures["search p50"] = (float(np.percentile(seconds, 50)) * 1000, "ms")
    figures["search p99"] = (float(np.percentile(seconds, 99)) * 1000, "ms")
    figures[f"queries of {THREADS} threads"] = (per_second(table, queries), "per s")
    append, stall = appends(table, queries, rows, dim)
    figures["append of 1,000"] = (append, "s")
    figures["longest query meanwhile"] = (stall * 1000, "ms")
    sys.stdout.write(json.dumps({**figures, "found": found}) + "\n")


def schema(dim: int) -> pa.Schema:
    """Return the columns."""
    return pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), dim))])


def batches(vectors: np.ndarray, first: int = 0) -> Any:
    """Yield rows, numbered from ``first``, so that memory need not hold them all."""
    dim = vectors.shape[1]
    for start in range(0, len(vectors), 20_000):
        block = np.ascontiguousarray(vectors[start : start + 20_000])
        ids = pa.array(np.arange(first + start, first + start + len(block)))
        column = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), dim)
        yield pa.RecordBatch.from_arrays([ids, column], schema=schema(dim))


def ask(table: Any, query: np.ndarray) -> list[int]:
    """Return the rows that one query finds."""
    search = table.search(query, vector_column_name="vector").distance_type("dot")
    answer = search.nprobes(PROBES).refine_factor(REFINE).limit(K).select(["id"]).to_arrow()
    ids: list[int] = answer["id"].to_pylist()
    return ids


def per_second(table: Any, queries: np.ndarray) -> float:
    """Return how many queries several threads get answered."""
    deadline = time.perf_counter() + SECONDS

    def run(first: int) -> int:
        count = 0
        while time.perf_counter() < deadline:
            ask(table, queries[(first + count) % len(queries)])
            count += 1
        return count

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(run, range(0, len(queries), -(-len(queries) // THREADS)))) / SECONDS


def appends(table: Any, queries: np.ndarray, rows: int, dim: int) -> tuple[float, float]:
    """Append while another thread asks; return the median seconds until found, and the stall."""
    is_done = threading.Event()
    longest = [0.0]

    def keep_asking() -> None:
        number = 0
        while not is_done.wait(0.005):
            number += 1
            started = time.perf_counter()
            ask(table, queries[number % len(queries)])
            longest[0] = max(longest[0], time.perf_counter() - started)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    random = np.random.default_rng(5)
    seconds = []
    for number in range(TIMES):
        new = random.standard_normal((APPENDED, dim), dtype=np.float32)
        new /= np.linalg.norm(new, axis=1, keepdims=True)
        first = rows + number * APPENDED
        started = time.perf_counter()
        table.add(next(batches(new, first)))
        while first + 500 not in ask(table, new[500]):
            time.sleep(0.001)
        seconds.append(time.perf_counter() - started)
    is_done.set()
    thread.join()
    return float(np.median(seconds)), longest[0]


if __name__ == "__main__":
    main()
