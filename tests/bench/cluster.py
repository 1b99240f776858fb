"""The engine with real workers, and an embedder that sleeps: what is left is the engine's."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from bench.figures import Bench
from imagedex.engine import DaskEngine, Seat, WorkerContext, WorkerStatus
from imagedex.indexing import ChunkTask
from imagedex.indexing.known_vectors import KnownVector
from imagedex.jobs import ChunkAction, ChunkDone, Job, JobStatus, PlannedChunk
from support.controller import Controller
from support.unusual_models import SlowModel

_SECONDS_PER_IMAGE = 0.01
_KILLS = 10
_AS_SERVED = {
    "chunk_images": 256,
    "batch_images": 8,
    "commit_images": 20_000,
    "commit_seconds": 10.0,
}


def overhead(bench: Bench, chunks: int = 100) -> None:
    """A chunk of 256 images there and back, with its checkpoint, on a worker that does nothing."""
    with _controller(bench, "overhead", SlowModel(), workers=1) as controller:
        engine, jobs = controller.engine, controller.jobs
        _paint(controller.photos, 1)
        job = controller.indexing.trigger(str(controller.photos))
        lease = jobs.lease_next("bench")
        assert lease is not None
        paths = [
            tuple(f"/photos/of/a/usual/length/{chunk:03}-{number:03}.jpg" for number in range(256))
            for chunk in range(chunks)
        ]
        plan = [PlannedChunk(ChunkAction.EMBED, some) for some in paths]
        total = 256 * chunks
        jobs.save_plan(lease, plan, total_images=total, settled_images=0, failures=())
        engine.start()
        milliseconds = []
        for number, some in enumerate(paths):
            known = {
                path: (KnownVector("0" * 64, "segments/00000001-1.parquet", 1),) for path in some
            }
            task = ChunkTask(
                controller.setup, controller.prefix, job.job_id, number, lease.fence, some, known
            )
            started = time.perf_counter()
            seat = engine.reserve().result()
            done = engine.submit(answer_at_once, task, seat=seat).result()
            with controller.database.transaction() as transaction:
                jobs.checkpoint_embedded(transaction, lease, done)
            milliseconds.append((time.perf_counter() - started - done.seconds) * 1000)
    milliseconds.sort()
    name = "engine, a chunk of 256 images beyond the worker's time"
    bench.at_most(f"{name}, median", statistics.median(milliseconds), "ms", 30)
    bench.report(f"{name}, p95", milliseconds[int(0.95 * chunks)], "ms")


def answer_at_once(context: WorkerContext, task: ChunkTask) -> ChunkDone:
    """Return what a worker makes of a chunk, without doing it."""
    started = time.monotonic()
    images = len(task.image_paths)
    context.progress(images, task.image_paths[:32])
    part = f"parts/{task.job_id}/{task.number:06}-{task.fence}-00000000.parquet"
    seconds = time.monotonic() - started
    return ChunkDone(task.number, part, images, (), context.worker_id, context.host, seconds)


def speed_up(bench: Bench, images: int = 4000) -> None:
    """Images that take 10 ms each, on one worker and on four; between 20 % and 80 % of the job."""
    rates = {}
    for workers in (1, 4):
        log = bench.scratch / f"encoded-{workers}"
        model = SlowModel(seconds_per_image=_SECONDS_PER_IMAGE, log=log)
        with _controller(bench, f"speed-{workers}", model, workers=workers) as controller:
            _paint(controller.photos, images)
            controller.engine.start()
            while len(controller.engine.workers()) < workers:
                time.sleep(0.05)
            controller.runner.start()
            _wait(controller, controller.indexing.trigger(str(controller.photos)))
        rates[workers] = _rate_in_the_middle(log)
        bench.report(f"engine, embedder of 10 ms, {workers} workers", rates[workers], "images/s")
    bench.at_least("engine, speed-up from 1 to 4 workers", rates[4] / rates[1], "times", 3.8)


def cancel(bench: Bench) -> None:
    """From the request to cancel until the workers are free; a batch of 32 takes 0.37 s."""
    model = SlowModel(seconds_per_image=_SECONDS_PER_IMAGE, seconds_per_batch=0.05)
    seconds = []
    with _controller(bench, "cancel", model, workers=2, batch_images=32) as controller:
        _paint(controller.photos, 1500)
        controller.runner.start()
        controller.index(force=True)  # So that batches are as large as they get.
        for _ in range(5):
            job = controller.indexing.trigger(str(controller.photos), force_reindex=True)
            time.sleep(5)
            started = time.monotonic()
            controller.indexing.cancel(job.job_id)
            while any(w.status is WorkerStatus.BUSY for w in controller.engine.workers()):
                time.sleep(0.005)
            seconds.append(time.monotonic() - started)
            assert controller.wait(job).status is JobStatus.CANCELLED
    bench.at_most("engine, cancel to free workers, batches of 0.37 s", max(seconds), "s", 0.87)


def killed_workers(bench: Bench) -> None:
    """From ``kill -9`` of one of two workers until each of its chunks is with a worker again."""
    model = SlowModel(seconds_per_image=_SECONDS_PER_IMAGE)
    engine = _WatchedEngine(workers=2, threads_per_worker=1, log_dir=bench.scratch / "kill-logs")
    with _controller(bench, "kill", model, engine=engine) as controller:
        good = _paint(controller.photos, 8000)
        controller.runner.start()
        job = controller.indexing.trigger(str(controller.photos))
        chance = random.Random(5)
        seconds: list[float] = []
        while len(seconds) < _KILLS:
            time.sleep(chance.uniform(3, 6))
            if controller.jobs.get(job.job_id).status.is_final:
                break  # No chunk is left that a worker could be killed under.
            seconds.append(engine.kill_one(chance))
        _wait(controller, job)
        assert controller.indexing.stats().num_images == good
    bench.at_most(
        "engine, kill -9 of a worker to its chunks run again, worst", max(seconds), "s", 3
    )


@dataclass
class _Given:
    worker_id: str
    at: float
    is_done: bool = False


class _WatchedEngine(DaskEngine):
    """An engine that notes which chunk is with which worker since when."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._given: dict[int, list[_Given]] = defaultdict(list)

    def submit(self, function: Any, payload: Any, *, seat: Seat | None = None) -> Future[Any]:
        assert seat is not None
        given = _Given(seat.worker.worker_id, time.monotonic())
        self._given[payload.number].append(given)
        future = super().submit(function, payload, seat=seat)
        future.add_done_callback(lambda _: setattr(given, "is_done", True))
        return future

    def kill_one(self, chance: random.Random) -> float:
        """Kill a worker that has chunks; return the seconds until all of them are given again."""
        while True:
            busy = {
                runs[-1].worker_id for runs in self._given.copy().values() if not runs[-1].is_done
            }
            if busy:
                break
            time.sleep(0.01)
        victim = chance.choice(sorted(busy))
        slot = int(victim.partition("-")[2].partition(".")[0])
        lost = [
            (number, len(runs))
            for number, runs in self._given.copy().items()
            if runs[-1].worker_id == victim and not runs[-1].is_done
        ]
        killed_at = time.monotonic()
        os.kill(_worker_pids()[slot], signal.SIGKILL)
        while any(len(self._given[number]) == runs for number, runs in lost):
            time.sleep(0.005)
        return max((self._given[number][runs].at - killed_at for number, runs in lost), default=0)


def _worker_pids() -> dict[int, int]:
    """Return the newest worker process of each slot, by the log that it writes."""
    pids = {}
    for process in psutil.Process().children():
        if "imagedex.engine._dask_worker" in process.cmdline():
            log = os.readlink(f"/proc/{process.pid}/fd/1")  # noqa: PTH115 - Of another process.
            pids[int(log.rpartition("-")[2].partition(".")[0])] = process.pid
    return pids


@contextmanager
def _controller(
    bench: Bench, name: str, model: SlowModel, *, workers: int = 1, **options: Any
) -> Iterator[Controller]:
    folder = bench.scratch / f"engine-{name}"
    folder.mkdir()
    options.setdefault(
        "engine",
        DaskEngine(workers=workers, threads_per_worker=1, log_dir=folder / "logs"),
    )
    controller = Controller(folder, model=model, **{**_AS_SERVED, **options})
    try:
        yield controller
    finally:
        controller.close()


def _wait(controller: Controller, job: Job) -> None:
    while not (job := controller.jobs.get(job.job_id)).status.is_final:
        time.sleep(0.05)
    assert job.status is JobStatus.COMPLETED, job.error
    assert job.failed_images == 0


def _paint(folder: Path, count: int) -> int:
    """Write pictures of some hundred bytes, each of its own content; return how many."""
    for number in range(count):
        picture = Image.new("RGB", (12, 12), "green")
        picture.putpixel((0, 0), (number % 256, number // 256, 99))
        picture.save(folder / f"{number:05}.png", compress_level=0)
    return count


def _rate_in_the_middle(log: Path) -> float:
    """Return images per second between 20 % and 80 % of all that were encoded."""
    lines = sorted(tuple(map(float, line.split())) for line in log.read_text().splitlines())
    images = sum(count for _, _, count in lines)
    done, times = 0.0, []
    for _, ended, count in sorted(lines, key=lambda line: line[1]):
        done += count
        times.append((done, ended))
    first = next((at, time_) for at, time_ in times if at >= 0.2 * images)
    last = next((at, time_) for at, time_ in times if at >= 0.8 * images)
    return (last[0] - first[0]) / (last[1] - first[1])
