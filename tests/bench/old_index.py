"""Adopt an old index of full size, and hold its answers against Faiss.

    PYTHONPATH=src:tests python -m bench.old_index [--images N] [--dim D] [--folder DIR]

Prints one JSON document: seconds, peak memory of the importing process, and how far the ten best of
100 queries are those of ``faiss.IndexFlatIP``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
from numpy.typing import NDArray

from imagedex.segments import DirectoryIndexFiles
from support.commands import Commands
from support.old_indexes import draw_photos, unit_vectors, write_pair
from support.program import COMMAND

QUERIES, TOP = 100, 10
MODELS = {768: "clip-ViT-L-14", 512: "clip-ViT-B-32"}


def measure(folder: Path, count: int, dim: int) -> dict[str, Any]:
    """Import ``count`` vectors and return the figures."""
    photos = draw_photos(folder / "photos", count)
    vectors = unit_vectors(count, dim)
    write_pair(folder / "old", [path.name for path in photos], vectors)
    commands = Commands.local(folder / "home")
    started = time.monotonic()
    peak = _run_and_watch(
        [*COMMAND, "import-legacy", str(folder / "old"), "--root", str(folder / "photos"),
         "--model", MODELS[dim]],
        commands.environment,
    )  # fmt: skip
    seconds = time.monotonic() - started
    return {
        "images": count,
        "dim": dim,
        "import_seconds": round(seconds, 1),
        "images_per_second": round(count / seconds, 1),
        "peak_megabytes_of_the_importing_process": round(peak / 1e6),
        **_agreement(folder / "home" / "index", photos, vectors),
    }


def _run_and_watch(arguments: Sequence[str], environment: dict[str, str]) -> int:
    """Run a process; return the most bytes that were resident in it."""
    peak = 0
    process = subprocess.Popen(arguments, env=environment)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, watched.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    if process.wait():
        raise SystemExit(f"The import ended with {process.returncode}.")
    return peak


def _agreement(index: Path, photos: Sequence[Path], vectors: NDArray[np.float32]) -> dict[str, Any]:
    old = faiss.IndexFlatIP(vectors.shape[1])
    old.add(vectors)
    queries = unit_vectors(QUERIES, vectors.shape[1], seed=7)
    old_scores, old_rows = old.search(queries, TOP)
    files = DirectoryIndexFiles(index)
    manifest = files.current()
    assert manifest is not None
    hits = files.open(manifest, None).search(queries, [TOP] * QUERIES)
    same = sum(
        list(found.image_paths) == [str(photos[row]) for row in rows]
        for found, rows in zip(hits, old_rows, strict=True)
    )
    differences = [
        float(np.abs(found.scores - scores).max())
        for found, scores in zip(hits, old_scores, strict=True)
    ]
    return {
        "adopted": manifest.images,
        "segments": len(manifest.segments),
        "queries_with_identical_ids": f"{same} of {QUERIES}",
        "largest_difference_of_scores": max(differences),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=118_323)
    parser.add_argument("--dim", type=int, default=768, choices=sorted(MODELS))
    parser.add_argument("--folder", type=Path, help="an empty directory, which is kept")
    options = parser.parse_args()
    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as folder:
        json.dump(measure(Path(folder), options.images, options.dim), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
