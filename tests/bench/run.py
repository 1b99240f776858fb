"""Measure what Imagedex promises, print it, and write it to a JSON file.

Run by ``make bench``. Every figure is taken through the outside contract (commands and HTTP) from
real processes. The evaluation set is a folder with ``captions.tsv`` and ``images/``; without one
the figures that need it are left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench import clip, cluster, precision, scanning
from bench.figures import Bench
from bench.load import Latencies, get_request, measure, new_query, post_request
from bench.report import document, print_table
from imagedex.embedding.bundled import BundledModel
from support.kills import index_under_kills
from support.server import ServerProcess, wait_for_job
from support.vectors import make_index

# An optional evaluation folder beside the checkout: captions.tsv and images/.
STAMPS = Path(__file__).resolve().parents[3] / "shared" / "eval" / "stamps"


def retrieval(bench: Bench) -> None:
    """Captions of the evaluation set find their images."""
    command = [sys.executable, "-m", "imagedex.cli", "eval", str(bench.evaluation / "captions.tsv")]
    command += ["--images", str(bench.evaluation / "images"), "--json"]
    environment = {**os.environ, "IMAGEDEX_HOME": str(bench.scratch / "eval-home")}
    done = subprocess.run(command, check=True, capture_output=True, env=environment)
    scores = json.loads(done.stdout)
    bench.at_least("retrieval R@1", scores["R@1"], "", 0.27)
    bench.at_least("retrieval R@10", scores["R@10"], "", 0.52)


def indexing_speed(bench: Bench) -> None:
    """Images per second from trigger to completed, the model loaded by a job before."""
    images = bench.evaluation / "images"
    with ServerProcess(bench.scratch / "speed", [images]) as server, server.client() as client:
        rates = []
        for _ in range(4):
            started = time.monotonic()
            answer = client.post(
                "/api/v1/index/trigger", json={"image_dir": str(images), "force_reindex": True}
            )
            status: dict[str, Any] = wait_for_job(client, answer.json()["job_id"])
            seconds = time.monotonic() - started
            assert status["status"] == "completed", status
            rates.append(status["progress"]["processed_images"] / seconds)
        bench.at_least("indexing, model loaded", statistics.median(rates[1:]), "images/s", 40)


def serving(bench: Bench) -> None:
    """Start, queries and memory with an index of 10,000 vectors."""
    home = bench.scratch / "serving"
    make_index(home / "index", BundledModel(), 10_000)
    folder = bench.pictures("while-a-job-runs", 1000)
    server = ServerProcess(home, [folder])
    seconds = []
    for _ in range(5):
        started = time.monotonic()
        server.start()
        seconds.append(time.monotonic() - started)
        server.stop()
    bench.at_most("start to ready, 10,000 vectors", statistics.median(seconds), "s", 3)

    with server:
        chance = random.Random(1)
        _for_seconds(server, 2, [lambda: new_query(chance)])
        latencies = _for_seconds(server, 10, [lambda: new_query(chance)])
        bench.at_most("query p50, not cached", latencies.milliseconds(50), "ms", 15)
        same = post_request("/api/v1/query", {"text": "a dog in a park", "top_k": 10})
        latencies = _for_seconds(server, 5, [lambda: same])
        bench.at_most("query p50, cached", latencies.milliseconds(50), "ms", 3)
        bench.at_most("memory of the server", _resident_megabytes(server), "MB", 500)
        _while_a_job_runs(bench, server, folder)
        bench.at_most("memory of the server after a job", _resident_megabytes(server), "MB", 500)


def _while_a_job_runs(bench: Bench, server: ServerProcess, folder: Path) -> None:
    chance = random.Random(2)
    with server.client() as client:
        job_id, is_running = _start_job(server, folder)
        calls = [f"/api/v1/index/status/{job_id}", "/api/v1/index/jobs", "/api/v1/index/stats"]
        clients = [_one_of(chance, [get_request(call) for call in calls]) for _ in range(20)]
        latencies = measure(server.port, clients, until=lambda: not is_running())
        assert latencies.failed == 0
        bench.at_most(
            "control endpoints p99, 20 clients, job running", latencies.milliseconds(99), "ms", 100
        )
        assert wait_for_job(client, job_id)["status"] == "completed"

        job_id, is_running = _start_job(server, folder)
        latencies = measure(
            server.port, [lambda: new_query(chance)], until=lambda: not is_running()
        )
        assert latencies.failed == 0
        bench.at_most("query p99, not cached, job running", latencies.milliseconds(99), "ms", 60)
        assert wait_for_job(client, job_id)["status"] == "completed"


def _start_job(server: ServerProcess, folder: Path) -> tuple[str, Callable[[], bool]]:
    """Trigger a job and wait until its first images are done; then it runs for a while."""
    with server.client() as client:
        answer = client.post(
            "/api/v1/index/trigger", json={"image_dir": str(folder), "force_reindex": True}
        )
        job_id: str = answer.json()["job_id"]
        while _processed(client.get(f"/api/v1/index/status/{job_id}").json()) == 0:
            time.sleep(0.05)
    deadline = time.monotonic() + 10
    return job_id, lambda: time.monotonic() < deadline


def _processed(status: dict[str, Any]) -> int:
    processed: int = status["progress"]["processed_images"]
    return processed


def _one_of(chance: random.Random, requests: list[bytes]) -> Callable[[], bytes]:
    return lambda: chance.choice(requests)


def _for_seconds(
    server: ServerProcess, seconds: float, clients: list[Callable[[], bytes]]
) -> Latencies:
    deadline = time.monotonic() + seconds
    latencies = measure(server.port, clients, until=lambda: time.monotonic() >= deadline)
    assert latencies.failed == 0
    return latencies


def _resident_megabytes(server: ServerProcess) -> float:
    return float(psutil.Process(server.pid).memory_info().rss) / 1e6


def demo(bench: Bench) -> None:
    """``make demo`` in a fresh clone, with the downloads already in the user's caches."""
    clone = bench.scratch / "clone"
    here = Path(__file__).resolve().parents[2]
    subprocess.run(["git", "clone", "--quiet", str(here), str(clone)], check=True)
    started = time.monotonic()
    with (bench.scratch / "demo.log").open("wb") as log:
        done = subprocess.run(
            ["make", "demo"], cwd=clone, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    assert done.returncode == 0, (bench.scratch / "demo.log").read_text()[-4000:]
    bench.at_most("make demo, fresh clone", time.monotonic() - started, "s", 180)


def kills(bench: Bench) -> None:
    """Twenty ``kill -9`` while 1,000 images are indexed."""
    folder = bench.pictures("killed", 1000)
    images = {str(path) for path in folder.iterdir()}
    server = ServerProcess(bench.scratch / "kills", [folder])
    report = index_under_kills(server, folder, images, kills=20, seed=7)
    for fault in report.faults:
        bench.console.print(f"fault: {fault}")
    bench.at_least("kill -9 of the server while indexing", report.kills, "kills", 20)
    bench.at_most("faults found after the kills", len(report.faults), "", 0)


MEASUREMENTS = {
    "retrieval": retrieval,
    "indexing": indexing_speed,
    "serving": serving,
    "kills": kills,
    "scan": scanning.unchanged_files,
    "notify": scanning.notified_image,
    "engine-overhead": cluster.overhead,
    "engine-speed-up": cluster.speed_up,
    "engine-cancel": cluster.cancel,
    "engine-kills": cluster.killed_workers,
    "demo": demo,
    "precision": precision.agreement,
    "clip-indexing": clip.indexing,
    "clip-broken-files": clip.broken_files,
    "clip-texts": clip.texts,
    "clip-queries": clip.queries,
}
NEED_EVALUATION = {"retrieval", "indexing"}
NEED_TORCH = {name for name in MEASUREMENTS if name.startswith("clip-")}


def main() -> int:
    """Measure, print, write; return 1 when a figure was not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(MEASUREMENTS), action="append")
    parser.add_argument(
        "--evaluation", type=Path, default=STAMPS, help="holds captions.tsv and images/"
    )
    parser.add_argument(
        "--models", type=Path, help="keeps the CLIP models of random weights for the next run"
    )
    parser.add_argument("--output", type=Path, default=Path("bench-results.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagedex-bench-") as scratch:
        models = arguments.models or Path(scratch) / "models"
        bench = Bench(Path(scratch), arguments.evaluation, models)
        for name in arguments.only or MEASUREMENTS:
            if name in NEED_EVALUATION and not arguments.evaluation.is_dir():
                bench.console.print(f"{name}: left out, there is no {arguments.evaluation}")
                continue
            if name in NEED_TORCH and not clip.TORCH_PYTHON.is_file():
                bench.console.print(f"{name}: left out, it needs torch; first: make exactness")
                continue
            MEASUREMENTS[name](bench)
    print_table(bench.figures)
    arguments.output.write_text(json.dumps(document(bench.figures), indent=2) + "\n")
    return 0 if all(figure.is_met for figure in bench.figures) else 1


if __name__ == "__main__":
    sys.exit(main())
