"""Scans of trees in which nothing changed, and the way of one notified image."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.figures import Bench
from bench.scan_once import fill_catalog
from support.pictures import draw_pictures
from support.server import ServerProcess, wait_for_job

FILES_PER_DIRECTORY = 1000


def unchanged_files(bench: Bench, files: int = 1_000_000) -> None:
    """Scan and plan a tree that is as the catalog says, beside ``find -printf '%s %T@'``.

    ``IMAGEDEX_BENCH_SCAN_FILES`` sets another number of files. Both are run five times in turn,
    with warm caches; the scan is a process of its own, and its figures are told by it.
    """
    files = int(os.environ.get("IMAGEDEX_BENCH_SCAN_FILES", files))
    top = bench.scratch / "scan-tree"
    _make_tree(top, files)
    database = bench.scratch / "scan.db"
    fill_catalog(database, top)
    command = [sys.executable, "-m", "bench.scan_once", str(database), str(top)]
    finds, scans, peaks = [], [], []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(
            ["find", str(top), "-printf", "%s %T@\n"], check=True, stdout=subprocess.DEVNULL
        )
        finds.append(time.perf_counter() - started)
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert int(told[2]) == files, told
        scans.append(float(told[0]))
        peaks.append(float(told[1]))
    find, scan = statistics.median(finds), statistics.median(scans)
    bench.report(f"find of {files:,} files", find, "s")
    bench.report(f"scan of {files:,} unchanged files", scan, "s")
    bench.at_most(f"scan of {files:,} unchanged files, against find", scan / find, "times", 3)
    bench.at_most(f"scan of {files:,} unchanged files, peak memory", max(peaks), "MB", 300)


def notified_image(bench: Bench) -> None:
    """From notify of one image to its being found, the model loaded by a job before."""
    folder = bench.scratch / "notified"
    photos = draw_pictures(folder, 11)
    seconds = []
    with ServerProcess(bench.scratch / "notify", [folder]) as server, server.client() as client:
        for number, photo in enumerate(photos):
            started = time.monotonic()
            body = {"image_paths": [str(photo)]}
            job_id = client.post("/api/v1/index/notify", json=body).json()["job_id"]
            if number == 0:
                wait_for_job(client, job_id)  # It loads the model.
                continue
            query = {"text": "a picture", "top_k": 100}
            while not _is_found(client.post("/api/v1/query", json=query).json(), photo):
                time.sleep(0.005)
            seconds.append(time.monotonic() - started)
    bench.at_most("notify of one image to findable, median", statistics.median(seconds), "s", 1)
    bench.at_most("notify of one image to findable, longest", max(seconds), "s", 1)


def _is_found(answer: dict[str, object], photo: Path) -> bool:
    results = answer["results"]
    assert isinstance(results, list)
    return str(photo) in [result["image_path"] for result in results]


def _make_tree(top: Path, files: int) -> None:
    for number in range(files):
        directory = top / f"{number // FILES_PER_DIRECTORY // 10:03}"
        directory /= f"{number // FILES_PER_DIRECTORY:05}"
        if number % FILES_PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        path = directory / f"IMG_{number:07}.jpg"
        path.touch()
        os.truncate(path, number % 977)  # A hole: a million files need no space.
        os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))
