"""CLIP at full size, with random weights: speed does not depend on the values.

The models are made once for each run by the exactness job's environment (torch and transformers),
which also runs the old worker's loop; everything measured against it is measured in the same run.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.figures import Bench
from bench.load import measure, six_words
from imagedex.embedding.clip import ClipModel
from imagedex.embedding.clip.text_encoder import ClipTextEncoder
from imagedex.embedding.clip.tokenizer import ClipTokenizer
from imagedex.embedding.runtimes import Precision, Runtime, load_graph, supports
from imagedex.ingest.picture import decode_picture
from support.pictures import draw_photos
from support.server import ServerProcess, wait_for_job
from support.vectors import make_index

ROOT = Path(__file__).resolve().parents[2]
TORCH_PYTHON = ROOT / ".venv-exactness" / "bin" / "python"
CORES = len(os.sched_getaffinity(0))
_SIX_WORDS = "two dogs playing in a park"
_VECTORS = 118_000
_OLD_RATIOS = {Precision.FP32: 1.2, Precision.BF16: 2.8, Precision.INT8: 4.5}
_QUERY_MILLISECONDS = {Precision.FP32: 40.0, Precision.INT8: 20.0}
_FROM_TO = ("created_at", "finished_at")  # From the request on, to the millisecond.
_CONCURRENCY_RATIOS = {Precision.FP32: 1.8, Precision.INT8: 2.5}


def indexing(bench: Bench) -> None:
    """Images per second end to end, against the bound and against the old worker's loop."""
    for size, images in (("ViT-B-32", 300), ("ViT-L-14", 64)):
        folder = _some(bench, images)
        model = ClipModel.open(_model(bench, size), name=size)
        decode = _decode_core_seconds(model, folder)
        with _server(bench, size, [_some(bench, 24), folder], Precision.FP32) as server:
            _index(server, _some(bench, 24))
            # In turns, since a machine that is shared is faster now and slower then.
            encode = [_encode_core_seconds(model)]
            rates = []
            for _ in range(3):
                rates.append(_index(server, folder)[0])
                encode.append(_encode_core_seconds(model))
            memory = _worker_gigabytes(server)
        ratios = [
            rate * (decode + (before + after) / 2) / CORES
            for rate, (before, after) in zip(rates, pairwise(encode), strict=True)
        ]
        bench.report(f"{size}: decoding and preprocessing 12 MP alone", decode, "core-s/image")
        bench.report(f"{size}: encoding alone, fp32", statistics.median(encode), "core-s/image")
        bench.report(f"{size}: indexing, fp32", statistics.median(rates), "images/s")
        bench.at_least(f"{size}: indexing end to end / bound", statistics.median(ratios), "", 0.92)
        if size == "ViT-L-14":
            weights = _bytes_of(model.files.graph("image", Precision.FP32))
            bench.at_most(
                "ViT-L-14: memory of a worker beyond its model", memory - weights, "GB", 1
            )
            _against_the_old_loop(bench, folder)


def _against_the_old_loop(bench: Bench, folder: Path) -> None:
    old = _torch("old-loop", _checkpoint(bench, "ViT-L-14"), folder, "--seconds", "60")
    old_rate = float(json.loads(old)["images_per_second"])
    bench.report("ViT-L-14: the old worker's loop", old_rate, "images/s")
    rates = {}
    for precision in (Precision.FP32, Precision.BF16, Precision.INT8):
        reason = supports(precision, Runtime.AUTO)
        if reason is not None:
            bench.console.print(f"ViT-L-14 {precision}: left out: {reason}")
            continue
        if precision is Precision.INT8:
            _quantize(bench, "ViT-L-14", folder)
        with _server(bench, "ViT-L-14", [_some(bench, 24), folder], precision) as server:
            _index(server, _some(bench, 24))
            rates[precision], _ = _index(server, folder)
    for precision, rate in rates.items():
        ratio = rate / old_rate
        bench.at_least(
            f"ViT-L-14: indexing / old loop, {precision}", ratio, "", _OLD_RATIOS[precision]
        )


def broken_files(bench: Bench) -> None:
    """A folder with one broken file in a hundred is indexed as fast, and each is listed."""
    photos = draw_photos(bench.scratch / "sound", 300)
    broken = bench.scratch / "with-broken"
    broken.mkdir()
    for number, photo in enumerate(photos):
        if number % 100 == 50:
            (broken / photo.name).write_bytes(photo.read_bytes()[:200_000])
        else:
            (broken / photo.name).hardlink_to(photo)
    with _server(bench, "ViT-B-32", [broken, photos[0].parent], Precision.FP32) as server:
        ratios = []
        _index(server, photos[0].parent)
        for _ in range(2):
            sound_rate, _ = _index(server, photos[0].parent)
            broken_rate, job_id = _index(server, broken)
            ratios.append(broken_rate / sound_rate)
        with server.client() as client:
            failures = client.get(f"/api/v1/index/jobs/{job_id}/failures").json()
    bench.at_least("1% broken files: images/s / without", statistics.median(ratios), "", 0.95)
    listed = sum(1 for failure in failures["failures"] if failure["reason"] == "truncated")
    bench.at_least("1% broken files: listed with a reason, of 3", listed, "", 3)


def texts(bench: Bench) -> None:
    """A text of six words at its real length, against the same padded to the context length."""
    model = ClipModel.open(_model(bench, "ViT-L-14"), name="ViT-L-14")
    spec = model.specification.text
    graph = model.files.graph("text", Precision.FP32)
    runner = load_graph(graph, threads=CORES, output=spec.output)
    tokenizer = ClipTokenizer(model.files.tokenizer, spec)
    padded_spec = replace(spec, padded_length=spec.context_length)
    cut = ClipTextEncoder(runner, tokenizer=tokenizer, spec=spec, dim=model.dim)
    padded = ClipTextEncoder(runner, tokenizer=tokenizer, spec=padded_spec, dim=model.dim)
    seconds: dict[str, list[float]] = {"cut": [], "padded": []}
    for _ in range(20):
        for name, encoder in (("cut", cut), ("padded", padded)):
            started = time.perf_counter()
            encoder.encode_texts([_SIX_WORDS])
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    bench.report("ViT-L-14: text of six words", medians["cut"] * 1000, "ms")
    bench.at_least("ViT-L-14: text, padded / cut", medians["padded"] / medians["cut"], "", 4)
    first, second = (
        encoder.encode_texts([_SIX_WORDS]).vectors[0].astype(np.float64)
        for encoder in (cut, padded)
    )
    bench.at_least("ViT-L-14: cosine of cut and padded", float(first @ second), "", 0.999999)


def queries(bench: Bench) -> None:
    """Text queries over HTTP with 118,000 vectors, from one client and from 32."""
    for precision in (Precision.FP32, Precision.INT8):
        if precision is Precision.INT8:
            folder = _some(bench, 64)
            _quantize(bench, "ViT-L-14", folder)
        directory = _model(bench, "ViT-L-14")
        model = ClipModel.open(directory, name=str(directory), precision=precision)
        home = bench.scratch / f"queries-{precision}"
        make_index(home / "index", model, _VECTORS)
        with _server(bench, "ViT-L-14", [bench.scratch], precision, home=home) as server:
            chance = random.Random(1)
            alone = [_queries(server, chance, 1, 15) for _ in range(2)][-1]
            together = [_queries(server, chance, 32, 15) for _ in range(2)][-1]
        bench.at_most(
            f"ViT-L-14, 118,000 vectors: query p50, {precision}",
            statistics.median(alone) * 1000,
            "ms",
            _QUERY_MILLISECONDS[precision],
        )
        bench.at_least(
            f"ViT-L-14, 118,000 vectors: queries/s of 32 clients / one, {precision}",
            len(together) / len(alone),
            "",
            _CONCURRENCY_RATIOS[precision],
        )
        shutil.rmtree(home)


def _queries(
    server: ServerProcess, chance: random.Random, clients: int, seconds: float
) -> tuple[float, ...]:
    deadline = time.monotonic() + seconds
    latencies = measure(
        server.port,
        [lambda: six_words(chance)] * clients,
        until=lambda: time.monotonic() >= deadline,
    )
    assert latencies.failed == 0
    return latencies.seconds


def _decode_core_seconds(model: ClipModel, folder: Path) -> float:
    """Return what it costs to read, hash, decode and preprocess a photo, alone on one core."""
    paths = sorted(folder.iterdir())[:24]
    used = []
    for path in paths:
        started = time.process_time()
        content = path.read_bytes()
        hashlib.sha256(content).hexdigest()
        picture = decode_picture(
            content, max_pixels=10**9, enough_size=model.preprocess.enough_size
        )
        model.preprocess(picture.image)
        used.append(time.process_time() - started)
    return statistics.mean(used)


def _encode_core_seconds(model: ClipModel) -> float:
    """Return what encoding costs alone on all cores, at the better of two batch sizes.

    In a process of its own, so that its memory is given back.
    """
    script = (
        "import sys, pickle, bench.clip as c; "
        "print(c.encode_core_seconds(pickle.loads(sys.stdin.buffer.read())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps(model),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )
    return float(done.stdout)


def encode_core_seconds(model: ClipModel) -> float:
    """Measure in this process (see above)."""
    encoder = model.load_image_encoder(threads=CORES)
    chance = np.random.default_rng(0)
    seconds: dict[int, list[float]] = {4: [], 8: []}
    pixels = chance.integers(0, 256, (max(seconds), *model.input_shape), dtype=np.uint8)
    for batch in seconds:
        encoder.encode_images(pixels[:batch])
    deadline = time.perf_counter() + 20
    while time.perf_counter() < deadline:
        for batch, used in seconds.items():
            started = time.perf_counter()
            encoder.encode_images(pixels[:batch])
            used.append((time.perf_counter() - started) / batch)
    return min(statistics.mean(used) for used in seconds.values()) * CORES


def _worker_gigabytes(server: ServerProcess) -> float:
    """Return the most memory that a process of the server's ever had."""
    family = psutil.Process(server.pid).children(recursive=True)
    return max(_peak_bytes(process.pid) for process in family) / 1e9


def _index(server: ServerProcess, folder: Path) -> tuple[float, str]:
    with server.client() as client:
        answer = client.post(
            "/api/v1/index/trigger", json={"image_dir": str(folder), "force_reindex": True}
        )
        job_id: str = answer.json()["job_id"]
        # Asked often, the status would take a share of the cores that are measured.
        status: dict[str, Any] = wait_for_job(client, job_id, seconds=1800, pause_seconds=2)
    assert status["status"] == "completed", status
    created, finished = (datetime.fromisoformat(status[key]) for key in _FROM_TO)
    return status["progress"]["processed_images"] / (finished - created).total_seconds(), job_id


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next((line for line in status.splitlines() if line.startswith("VmHWM")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


def _server(
    bench: Bench, size: str, roots: list[Path], precision: Precision, home: Path | None = None
) -> ServerProcess:
    home = home or bench.scratch / f"home-{size}-{precision}-{time.monotonic_ns()}"
    environment = {
        "IMAGEDEX_MODEL": str(_model(bench, size)),
        "IMAGEDEX_EMBEDDING__PRECISION": precision.value,
    }
    return ServerProcess(home, roots, environment)


def _some(bench: Bench, count: int) -> Path:
    """Return a folder with so many photos of 12 megapixels."""
    folder = bench.scratch / f"photos-{count}"
    if not folder.is_dir():
        draw_photos(folder, count)
    return folder


def _model(bench: Bench, size: str) -> Path:
    """Return a directory in layout one with a model of this size."""
    directory = bench.models / size
    if not directory.is_dir():
        checkpoint = _checkpoint(bench, size)
        _torch("checkpoint", size, checkpoint)
        command = [str(TORCH_PYTHON), "-m", "imagedex.cli", "models", "export"]
        subprocess.run([*command, str(checkpoint), str(directory)], check=True)
    return directory


def _checkpoint(bench: Bench, size: str) -> Path:
    bench.models.mkdir(parents=True, exist_ok=True)
    return bench.models / f"{size}.checkpoint"


def _quantize(bench: Bench, size: str, folder: Path) -> None:
    directory = _model(bench, size)
    if not list(directory.rglob("model_int8.*")):
        command = [sys.executable, "-m", "imagedex.cli", "models", "quantize", str(directory)]
        subprocess.run([*command, "--images", str(folder), "--count", "24"], check=True)


def _torch(*arguments: object) -> bytes:
    done = subprocess.run(
        [str(TORCH_PYTHON), "-m", "bench.torch_side", *map(str, arguments)],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )
    return done.stdout


def _bytes_of(graph: Path) -> float:
    return sum(part.stat().st_size for part in graph.parent.iterdir()) / 1e9
