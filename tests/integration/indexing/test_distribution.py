"""Chunks on workers that are slow, die, hang or are not there."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imagedex.engine import DaskEngine, Engine, Seat, WorkerStatus
from imagedex.indexing import ChunkTask, embed_chunk
from imagedex.jobs import ChunkAction, Job, JobStatus, PlannedChunk
from imagedex.testing.engine import wait_until
from imagedex.testing.thread_engine import ThreadEngine
from support.controller import Controller
from support.unusual_models import ENCODED, DeadlyModel, SlowModel

MakeController = Callable[..., Controller]


class NotingEngine(ThreadEngine):
    """An engine that notes the images of each chunk it is given."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.chunks: list[tuple[str, ...]] = []

    def submit(self, function: Any, payload: Any, *, seat: Seat | None = None) -> Future[Any]:
        self.chunks.append(payload.image_paths)
        return super().submit(function, payload, seat=seat)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeController]:
    """Return what makes a controller; it is closed after the test."""
    made: list[Controller] = []

    def make_one(**options: Any) -> Controller:
        made.append(Controller(tmp_path, **{"chunk_images": 256, **options}))
        return made[-1]

    yield make_one
    for controller in made:
        controller.close()


def _paint_many(controller: Controller, count: int, *, poison: tuple[int, ...] = ()) -> list[str]:
    """Write pictures of contents of their own, all green but for the poison ones."""
    for number in range(count):
        picture = Image.new("RGB", (12, 12), "red" if number in poison else "green")
        picture.putpixel((0, 0), (number % 256, number // 256, 99))
        picture.save(controller.photos / f"{number:03}.png", compress_level=0)
    return [f"{number:03}.png" for number in range(count) if number not in poison]


def _expect_all_but(controller: Controller, job: Job, good: list[str], poison: list[str]) -> None:
    assert job.status is JobStatus.COMPLETED, job.error
    assert job.failed_images == len(poison)
    assert job.processed_images == job.total_images == len(good) + len(poison)
    failures = controller.indexing.failures(job.job_id, limit=50, cursor=None).items
    assert [(Path(f.image_path).name, f.reason) for f in failures] == [
        (name, "worker_crashed") for name in poison
    ]
    assert Counter(controller.find("any")) == Counter(good)
    stats = controller.indexing.stats()
    assert (stats.num_images, stats.num_failed) == (len(good), len(poison))


def test_two_images_on_which_workers_die_fail_and_all_others_are_found_once(
    make: MakeController,
) -> None:
    controller = make(model=DeadlyModel())
    good = _paint_many(controller, 90, poison=(17, 70))
    controller.runner.start()
    job = controller.wait(controller.indexing.trigger(str(controller.photos)))
    _expect_all_but(controller, job, good, ["017.png", "070.png"])
    # Mended, they are tried again like any other file that failed.
    Image.new("RGB", (12, 12), "blue").save(controller.photos / "017.png")
    job = controller.wait(controller.indexing.trigger(str(controller.photos)))
    assert job.failed_images == 1
    assert controller.find("blue", 1) == ["017.png"]


def test_an_image_on_which_worker_processes_die_fails_alone(
    make: MakeController, tmp_path: Path
) -> None:
    engine = DaskEngine(workers=2, threads_per_worker=1, log_dir=tmp_path / "logs")
    controller = make(model=DeadlyModel(by="signal"), engine=engine)
    good = _paint_many(controller, 3, poison=(1,))
    controller.runner.start()
    job = controller.indexing.trigger(str(controller.photos))
    # Four workers have to start one after the other, which on a busy machine takes a while.
    deadline = time.monotonic() + 300
    while not controller.jobs.get(job.job_id).status.is_final and time.monotonic() < deadline:
        time.sleep(0.05)
    _expect_all_but(controller, controller.wait(job), good, ["001.png"])
    (failure,) = controller.indexing.failures(job.job_id, limit=5, cursor=None).items
    assert "2 worker processes ended while they had this image" in failure.detail


def test_workers_that_die_of_everything_fail_the_job_and_no_image(make: MakeController) -> None:
    controller = make(model=DeadlyModel())
    _paint_many(controller, 20, poison=tuple(range(20)))
    job = controller.indexing.trigger(str(controller.photos))
    controller.runner.start()
    assert "died one after the other" in controller.wait_for_error(job)
    controller.indexing.cancel(job.job_id)
    job = controller.wait(job)
    assert (job.failed_images, job.processed_images) == (0, 0)


def test_a_cancelled_job_frees_its_workers_after_the_batch_that_they_have(
    make: MakeController,
) -> None:
    controller = make(model=SlowModel(seconds_per_image=0.1), engine=ThreadEngine(workers=1))
    _paint_many(controller, 200)
    ENCODED.clear()
    controller.runner.start()
    job = controller.indexing.trigger(str(controller.photos), force_reindex=True)
    wait_until(lambda: len(ENCODED) >= 2, "the first batches")
    controller.indexing.cancel(job.job_id)
    assert controller.wait(job).status is JobStatus.CANCELLED
    wait_until(
        lambda: {worker.status for worker in controller.engine.workers()} == {WorkerStatus.IDLE},
        "the worker to be free",
    )
    # The chunk at hand alone has sixteen.
    assert sum(ENCODED) < 14
    assert not list(controller.prefix.rglob("parts/*/*.parquet"))


def test_chunks_are_cut_for_their_workers_and_no_image_is_in_two(make: MakeController) -> None:
    engine = NotingEngine(workers=2)
    controller = make(engine=engine)
    good = _paint_many(controller, 100)
    controller.runner.start()
    controller.index()
    assert Counter(controller.find("any")) == Counter(good)
    sizes = [len(chunk) for chunk in engine.chunks]
    assert sizes[0] == 16
    assert 5 <= len(sizes) <= 12
    given = Counter(path for chunk in engine.chunks for path in chunk)
    assert given == Counter(str(controller.photos / name) for name in good)


def test_what_a_worker_left_before_the_controller_died_is_not_embedded_again(
    make: MakeController,
) -> None:
    engine = NotingEngine(workers=1)
    controller = make(engine=engine)
    good = _paint_many(controller, 12)
    (controller.photos / "empty.png").touch()
    job = controller.indexing.trigger(str(controller.photos))
    # What a controller does that is killed when a worker has written its part.
    lease = controller.jobs.lease_next("test:0")
    assert lease is not None
    paths = sorted(str(path) for path in controller.photos.iterdir())
    halves = [tuple(paths[:8]), tuple(paths[8:])]
    plan = [PlannedChunk(ChunkAction.EMBED, half) for half in halves]
    controller.jobs.save_plan(lease, plan, total_images=13, settled_images=0, failures=())
    task = ChunkTask(controller.setup, controller.prefix, job.job_id, 1, lease.fence, halves[1])
    engine.start()
    assert engine.submit(embed_chunk, task).result().indexed == 4
    controller.jobs.expire_own("test:")
    engine.chunks.clear()

    controller.runner.start()
    job = controller.wait(job)
    assert job.status is JobStatus.COMPLETED, job.error
    assert (job.processed_images, job.failed_images) == (13, 1)
    assert engine.chunks == [halves[0]]
    assert Counter(controller.find("any")) == Counter(good)
    failures = controller.indexing.failures(job.job_id, limit=5, cursor=None).items
    assert [Path(failure.image_path).name for failure in failures] == ["empty.png"]


def test_a_job_without_workers_says_so_and_goes_on_when_they_come(make: MakeController) -> None:
    engine = ThreadEngine(workers=1, no_worker_seconds=0.3)
    controller = make(engine=engine)
    controller.paint("red.png", "red")
    engine.start()
    (worker,) = engine.workers()
    engine.lose_worker(worker.worker_id, is_replaced=False)
    wait_until(lambda: not engine.workers(), "the worker to be gone")
    job = controller.indexing.trigger(str(controller.photos))
    controller.runner.start()
    assert "No worker has been connected for 0.3 seconds" in controller.wait_for_error(job)
    assert controller.jobs.get(job.job_id).status in (JobStatus.QUEUED, JobStatus.RUNNING)
    engine.close()  # Started again with its worker by the next attempt.
    assert controller.wait(job).status is JobStatus.COMPLETED
    assert controller.find("red") == ["red.png"]


def test_a_running_job_tells_the_rate_of_its_workers_and_when_it_will_end(
    make: MakeController,
) -> None:
    controller = make(model=SlowModel(seconds_per_image=0.02), engine=ThreadEngine(workers=1))
    _paint_many(controller, 150)
    controller.runner.start()
    job = controller.indexing.trigger(str(controller.photos))
    wait_until(lambda: controller.jobs.get(job.job_id).processed_images >= 32, "two chunks")
    report = controller.indexing.status(job.job_id)
    assert report.job.status is JobStatus.RUNNING
    (worker,) = report.workers
    assert (worker.status, worker.images_processed >= 32) == ("busy", True)
    assert worker.images_per_second is not None
    assert 0 < worker.images_per_second <= 51
    assert report.estimated_completion is not None
    seconds = report.estimated_completion.timestamp() - time.time()
    left = report.job.total_images - report.job.processed_images
    assert seconds == pytest.approx(left / worker.images_per_second, abs=0.5)
    assert controller.wait(job).status is JobStatus.COMPLETED
    report = controller.indexing.status(job.job_id)
    assert report.estimated_completion is None
    # The next life of the controller knows how fast the worker was.
    (rate,) = controller.jobs.worker_rates().values()
    assert 0 < rate <= 51
    engine: Engine = controller.engine
    engine.close()
    (worker,) = controller.indexing.status(job.job_id).workers
    assert (worker.status, worker.images_per_second) == ("lost", None)
