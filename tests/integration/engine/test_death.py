"""Workers that die: of themselves, by a chunk, or with the controller."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from imagedex.core.errors import EngineError, WorkerLost
from imagedex.engine import DaskEngine, WorkerStatus
from imagedex.testing.engine import (
    DEADLINE_SECONDS,
    echo,
    go_on_until_stopped,
    note_and_wait,
    wait_until,
)
from integration.engine import hostile_chunks
from integration.engine.processes import is_alive


def test_a_chunk_whose_worker_is_killed_runs_again_and_the_worker_is_replaced(
    dask_engine: DaskEngine, tmp_path: Path
) -> None:
    before = {worker.worker_id for worker in dask_engine.workers()}
    future = dask_engine.submit(note_and_wait, (str(tmp_path), "began", "gate"))
    wait_until((tmp_path / "began").exists, "the chunk to begin")
    victim = int((tmp_path / "began").read_text())
    (tmp_path / "began").unlink()
    os.kill(victim, signal.SIGKILL)
    wait_until((tmp_path / "began").exists, "the chunk to begin again")
    assert int((tmp_path / "began").read_text()) != victim
    (tmp_path / "gate").touch()
    assert future.result(DEADLINE_SECONDS) != victim
    wait_until(
        lambda: len({worker.worker_id for worker in dask_engine.workers()} - before) == 1,
        "a replacement under a new id",
    )


def test_a_chunk_that_kills_its_workers_fails_alone(
    dask_engine: DaskEngine, tmp_path: Path
) -> None:
    innocent = [dask_engine.submit(echo, number) for number in range(10)]
    deadly = dask_engine.submit(hostile_chunks.die, str(tmp_path))
    innocent += [dask_engine.submit(echo, number) for number in range(10, 20)]
    with pytest.raises(EngineError, match="2 workers died") as caught:
        deadly.result(DEADLINE_SECONDS)
    assert caught.value.retryable
    assert [future.result(DEADLINE_SECONDS) for future in innocent] == list(range(20))
    assert len(list(tmp_path.glob("died-*"))) == 2
    wait_until(lambda: len(dask_engine.workers()) == 2, "both slots to be filled again")
    assert dask_engine.submit(echo, "usable").result(DEADLINE_SECONDS) == "usable"


def test_the_children_of_a_killed_worker_end_with_it(
    dask_engine: DaskEngine, tmp_path: Path
) -> None:
    future = dask_engine.submit(hostile_chunks.hang_with_a_child, str(tmp_path))
    wait_until((tmp_path / "waits").exists, "the chunk to wait for its child")
    child = int((tmp_path / "child").read_text())
    worker = int((tmp_path / "waits").read_text())
    (tmp_path / "waits").unlink()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not is_alive(child), "the child to end")
    # The chunk runs once more, with another child; its second death ends it.
    wait_until((tmp_path / "waits").exists, "the chunk to begin again")
    os.kill(int((tmp_path / "waits").read_text()), signal.SIGKILL)
    assert isinstance(future.exception(DEADLINE_SECONDS), EngineError)


def test_a_worker_that_is_cut_off_but_alive_is_ended_and_its_chunk_runs_elsewhere(
    dask_engine: DaskEngine, tmp_path: Path
) -> None:
    future = dask_engine.submit(note_and_wait, (str(tmp_path), "began", "gate"))
    wait_until((tmp_path / "began").exists, "the chunk to begin")
    cut_off = int((tmp_path / "began").read_text())
    (tmp_path / "began").unlink()
    session = dask_engine._session
    assert session is not None
    assert session._hub is not None
    scheduler = session._hub._scheduler
    assert scheduler is not None
    [busy] = [worker for worker in dask_engine.workers() if worker.status is WorkerStatus.BUSY]
    address = session._hub._addresses[busy.worker_id]
    # What Dask does when heartbeats stay away; the worker is not told, as over a cut link.
    session._loop.run(
        scheduler.remove_worker(address, stimulus_id="test", close=False),
        timeout_seconds=DEADLINE_SECONDS,
    )
    wait_until(lambda: not is_alive(cut_off), "the worker that was cut off to end")
    wait_until((tmp_path / "began").exists, "the chunk to begin again")
    (tmp_path / "gate").touch()
    assert future.result(DEADLINE_SECONDS) != cut_off


def test_a_chunk_that_shares_its_worker_with_a_deadly_one_runs_to_its_end_elsewhere(
    dask_engine: DaskEngine, tmp_path: Path
) -> None:
    names = ("first", "second")  # One on each worker.
    waiting = [dask_engine.submit(note_and_wait, (str(tmp_path), name, "gate")) for name in names]
    for name in names:
        wait_until((tmp_path / name).exists, "both chunks to begin")
    workers = [int((tmp_path / name).read_text()) for name in names]
    deadly = dask_engine.submit(hostile_chunks.die, str(tmp_path))
    wait_until(lambda: list(tmp_path.glob("died-*")), "a worker to die of the chunk beside")
    (tmp_path / "gate").touch()
    survivors = [chunk.result(DEADLINE_SECONDS) for chunk in waiting]
    assert len(set(survivors) & set(workers)) < 2
    assert isinstance(deadly.exception(DEADLINE_SECONDS), EngineError)


def test_a_chunk_on_a_seat_is_lost_with_its_worker_and_it_is_told_what_was_in_hand(
    dask_engine: DaskEngine, tmp_path: Path
) -> None:
    wait_until(lambda: len(dask_engine.workers()) == 2, "both workers")
    seat = dask_engine.reserve(alone=True).result(DEADLINE_SECONDS)
    future = dask_engine.submit(go_on_until_stopped, (str(tmp_path), "began"), seat=seat)

    def images_in_chunk() -> int:
        return max((worker.images_in_chunk for worker in dask_engine.workers()), default=0)

    wait_until(lambda: images_in_chunk() > 3, "some progress")
    os.kill(int((tmp_path / "began").read_text()), signal.SIGKILL)
    loss = future.exception(DEADLINE_SECONDS)
    assert isinstance(loss, WorkerLost)
    assert (loss.worker_id, loss.host) == (seat.worker.worker_id, seat.worker.host)
    assert (loss.has_begun, loss.was_alone) == (True, True)
    assert loss.images_done > 3
    assert loss.in_hand == (f"image {loss.images_done}",)
    wait_until(lambda: len(dask_engine.workers()) == 2, "another worker in its slot")
    assert seat.worker.slot in {worker.slot for worker in dask_engine.workers()}


def test_a_worker_whose_chunk_stands_still_is_ended_and_replaced(tmp_path: Path) -> None:
    engine = DaskEngine(workers=1, log_dir=tmp_path / "logs", stall_seconds=4)
    engine.start()
    try:
        # So that the worker has imported what the chunk is made of.
        assert engine.submit(hostile_chunks.read_input, None).result(DEADLINE_SECONDS) == b""
        seat = engine.reserve().result(DEADLINE_SECONDS)
        hanging = engine.submit(
            hostile_chunks.hang_with_the_interpreter_locked, str(tmp_path), seat=seat
        )
        loss = hanging.exception(DEADLINE_SECONDS)
        assert isinstance(loss, WorkerLost)
        assert "no progress" in str(loss)
        assert engine.submit(echo, 1).result(DEADLINE_SECONDS) == 1
        assert engine.workers()[0].worker_id != seat.worker.worker_id
    finally:
        engine.close()
