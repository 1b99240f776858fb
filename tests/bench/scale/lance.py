"""LanceDB on the same vectors, run by an interpreter of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np

from bench.figures import Bench
from bench.scale.library import Library
from bench.scale.searching import kinds
from imagedex.segments._parquet import read_vectors

PYTHON = Path(__file__).resolve().parents[3] / ".venv-lancedb" / "bin" / "python"
_SIDE = Path(__file__).with_name("lance_side.py")
_K = 10


def compare(bench: Bench, library: Library) -> None:
    """Report what LanceDB (IVF_RQ) does, and hold ours against it."""
    if not PYTHON.is_file():
        bench.console.print("lance: left out, it needs LanceDB; first: scripts/setup_lancedb.sh")
        return
    folder = bench.scratch / "lance"
    folder.mkdir()
    np.save(folder / "queries.npy", library.asked)
    rows = sum(segment.rows for segment in library.manifest.segments)
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(rows, library.dim)
    )
    first = 0
    for segment in library.manifest.segments:
        for block in read_vectors(library.prefix / segment.parquet.name):
            vectors[first : first + len(block)] = block
            first += len(block)
    done = subprocess.run([str(PYTHON), str(_SIDE), str(folder)], check=True, stdout=-1)
    theirs = json.loads(done.stdout.splitlines()[-1])
    found = np.array(theirs.pop("found"))
    scores = np.einsum("qd,qkd->qk", library.asked, vectors[found])
    least = library.exact_scores(library.asked, _K)[:, -1:]
    for kind, some in kinds(len(library.asked)).items():
        recall = float((scores[some] >= least[some] - 1e-6).mean())
        bench.report(f"LanceDB, recall@10, queries like {kind}", recall, "")
    for name, (value, unit) in theirs.items():
        bench.report(f"LanceDB, {name}", value, unit)
    _hold_against(bench, theirs, "search p50", "search p50", at_most=True)
    _hold_against(bench, theirs, "queries of 8 threads", "queries of 8 threads", at_most=False)
    appended = f"append of 1,000 to {library.rows:,}"
    _hold_against(bench, theirs, appended, "append of 1,000", at_most=True)
    stall = f"{appended}, longest query meanwhile"
    _hold_against(bench, theirs, stall, "longest query meanwhile", at_most=True)


def _hold_against(
    bench: Bench, theirs: dict[str, list[float]], ours: str, name: str, *, at_most: bool
) -> None:
    """Add how our figure stands to theirs, where both were taken."""
    mine = next((figure for figure in bench.figures if figure.name == ours), None)
    if mine is None:
        return
    ratio = mine.value / theirs[name][0]
    if at_most:
        bench.at_most(f"{ours}, against LanceDB's", ratio, "times", 1)
    else:
        bench.at_least(f"{ours}, against LanceDB's", ratio, "times", 1)
