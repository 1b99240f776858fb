"""What every engine must do.

An adapter is tested by a subclass of :class:`EngineSuite` with a fixture ``engine`` that gives
a started engine of at least one worker; the chunk functions here are importable in any worker.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, cast

import pytest

from imagedex.core.errors import ChunkStopped, EngineError, FingerprintMismatch
from imagedex.engine._worker_config import CHUNKS_AT_ONCE
from imagedex.engine.interfaces import (
    Engine,
    WorkerContext,
    WorkerStatus,
)

DEADLINE_SECONDS = 60.0  # Generous: it only decides how long a failing test takes.


class Unpicklable(Exception):
    """An exception that holds something of its own process, as those of many libraries do."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Tally:
    """A resource that counts how often it is used, and leaves a file when it is closed."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._uses = 0

    def use(self) -> int:
        """Return how often this was called."""
        self._uses += 1
        return self._uses

    def close(self) -> None:
        """Leave the file ``closed-PID``."""
        (self._directory / f"closed-{os.getpid()}").touch()


def echo(context: WorkerContext, payload: Any) -> Any:
    """Return the payload."""
    return payload


def describe(context: WorkerContext, payload: None) -> dict[str, Any]:
    """Return what the context says of the worker."""
    return {
        "worker_id": context.worker_id,
        "host": context.host,
        "threads": context.threads,
        "pid": os.getpid(),
    }


def use_tally(context: WorkerContext, directory: str) -> tuple[int, int]:
    """Return the process id and how often the worker's Tally was used."""
    return os.getpid(), context.resource("tally", lambda: Tally(directory)).use()


def fail_as(context: WorkerContext, kind: str) -> None:
    """Raise what the payload names."""
    errors: dict[str, Callable[[], BaseException]] = {
        "imagedex": lambda: FingerprintMismatch("another model"),
        "key": lambda: KeyError("missing"),
        "unpicklable": lambda: Unpicklable("out of reach"),
        "exit": lambda: SystemExit(3),
    }
    raise errors[kind]()


def return_lambda(context: WorkerContext, payload: None) -> Any:
    """Return what cannot be pickled."""
    return lambda: None


def note_and_wait(context: WorkerContext, payload: tuple[str, str, str]) -> int:
    """Leave the first file's name as a mark, then wait for the other file; return the pid."""
    directory, mark, gate = payload
    (Path(directory) / f"{mark}.tmp").write_text(str(os.getpid()))
    (Path(directory) / f"{mark}.tmp").rename(Path(directory) / mark)
    wait_until((Path(directory) / gate).exists, f"file {gate}")
    return os.getpid()


def go_on_until_stopped(context: WorkerContext, payload: tuple[str, str]) -> None:
    """Leave the pid as a mark and then tell of progress, for ever or until the deadline."""
    directory, mark = payload
    (Path(directory) / f"{mark}.tmp").write_text(str(os.getpid()))
    (Path(directory) / f"{mark}.tmp").rename(Path(directory) / mark)
    deadline = time.monotonic() + DEADLINE_SECONDS
    images = 0
    while time.monotonic() < deadline:
        images += 1
        context.progress(images, [f"image {images}"])
        time.sleep(0.01)


def _seats_of(engine: Engine) -> int:
    return CHUNKS_AT_ONCE * len(engine.workers())


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return as soon as the condition is true; fail when that takes longer than the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"Waited {DEADLINE_SECONDS:g} s in vain for {what}.")
        time.sleep(0.01)


class EngineSuite:
    """What every started engine must do."""

    def test_a_chunk_returns_its_result(self, engine: Engine) -> None:
        payload = {"paths": ["a", "b"], "size": 2**40, "bytes": b"\0\xff"}
        assert engine.submit(echo, payload).result(DEADLINE_SECONDS) == payload

    def test_many_chunks_from_several_threads_all_end_with_their_own_result(
        self, engine: Engine
    ) -> None:
        def submit_some(first: int) -> list[int]:
            futures = [engine.submit(echo, first + offset) for offset in range(25)]
            return [cast("int", future.result(DEADLINE_SECONDS)) for future in futures]

        with ThreadPoolExecutor(4) as callers:
            answers = list(callers.map(submit_some, [0, 100, 200, 300]))
        assert answers == [[first + offset for offset in range(25)] for first in (0, 100, 200, 300)]

    def test_the_context_tells_worker_host_and_threads(self, engine: Engine) -> None:
        facts = engine.submit(describe, None).result(DEADLINE_SECONDS)
        assert facts["worker_id"]
        assert facts["host"] in {worker.host for worker in engine.workers()}
        assert facts["threads"] >= 1

    def test_an_imagedex_error_arrives_as_itself_with_the_workers_traceback(
        self, engine: Engine
    ) -> None:
        with pytest.raises(FingerprintMismatch, match="another model") as caught:
            engine.submit(fail_as, "imagedex").result(DEADLINE_SECONDS)
        assert "in fail_as" in "".join(caught.value.__notes__)

    def test_a_builtin_error_arrives_as_itself(self, engine: Engine) -> None:
        with pytest.raises(KeyError, match="missing"):
            engine.submit(fail_as, "key").result(DEADLINE_SECONDS)

    def test_an_error_that_cannot_travel_becomes_an_engine_error_with_its_text(
        self, engine: Engine
    ) -> None:
        with pytest.raises(EngineError, match="Unpicklable: out of reach"):
            engine.submit(fail_as, "unpicklable").result(DEADLINE_SECONDS)

    def test_a_chunk_that_exits_ends_as_engine_error_and_the_engine_goes_on(
        self, engine: Engine
    ) -> None:
        with pytest.raises(EngineError, match="SystemExit: 3"):
            engine.submit(fail_as, "exit").result(DEADLINE_SECONDS)
        assert engine.submit(echo, 1).result(DEADLINE_SECONDS) == 1

    def test_a_result_that_cannot_be_pickled_fails_its_chunk_only(self, engine: Engine) -> None:
        error = engine.submit(return_lambda, None).exception(DEADLINE_SECONDS)
        assert error is not None
        assert "pickle" in str(error)
        assert engine.submit(echo, 1).result(DEADLINE_SECONDS) == 1

    def test_a_function_that_no_worker_can_import_is_refused(self, engine: Engine) -> None:
        def local(context: WorkerContext, payload: int) -> int:
            return payload

        with pytest.raises(TypeError, match="top level"):
            engine.submit(local, 1)
        with pytest.raises(TypeError, match="top level"):
            engine.submit(lambda context, payload: payload, 1)

    def test_a_resource_outlives_the_chunk_that_made_it(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        uses: dict[int, list[int]] = {}
        for _ in range(6):
            pid, count = engine.submit(use_tally, str(tmp_path)).result(DEADLINE_SECONDS)
            uses.setdefault(pid, []).append(count)
        for counts in uses.values():
            assert counts == list(range(counts[0], counts[0] + len(counts)))

    def test_a_cancelled_chunk_that_has_not_begun_never_runs(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        # As many as can have begun: whatever comes after them waits.
        blockers = [
            engine.submit(note_and_wait, (str(tmp_path), f"began-{number}", "gate"))
            for number in range(_seats_of(engine))
        ]
        waiting = engine.submit(note_and_wait, (str(tmp_path), "unwanted", "gate"))
        assert waiting.cancel()
        with pytest.raises(CancelledError):
            waiting.result(0)
        (tmp_path / "gate").touch()
        for blocker in blockers:
            blocker.result(DEADLINE_SECONDS)
        # Whatever was queued before these has been taken by then.
        for future in [engine.submit(echo, 1) for _ in blockers]:
            future.result(DEADLINE_SECONDS)
        assert not (tmp_path / "unwanted").exists()

    def test_a_chunk_that_has_begun_cannot_be_cancelled(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        running = engine.submit(note_and_wait, (str(tmp_path), "began", "gate"))
        wait_until((tmp_path / "began").exists, "the chunk to begin")
        assert not running.cancel()
        (tmp_path / "gate").touch()
        assert running.result(DEADLINE_SECONDS) > 0

    def test_a_callback_may_submit_the_next_chunk(self, engine: Engine) -> None:
        last: Future[int] = Future()

        def go_on(done: Future[Any]) -> None:
            number = done.result()
            if number == 5:
                last.set_result(number)
            else:
                engine.submit(echo, number + 1).add_done_callback(go_on)

        engine.submit(echo, 0).add_done_callback(go_on)
        assert last.result(DEADLINE_SECONDS) == 5

    def test_a_busy_worker_says_so(self, engine: Engine, tmp_path: Path) -> None:
        running = engine.submit(note_and_wait, (str(tmp_path), "began", "gate"))
        wait_until((tmp_path / "began").exists, "the chunk to begin")
        assert WorkerStatus.BUSY in {worker.status for worker in engine.workers()}
        (tmp_path / "gate").touch()
        running.result(DEADLINE_SECONDS)
        wait_until(
            lambda: {worker.status for worker in engine.workers()} == {WorkerStatus.IDLE},
            "the workers to be idle again",
        )

    def test_each_worker_has_two_seats_which_are_given_in_the_order_of_asking(
        self, engine: Engine
    ) -> None:
        seats = [engine.reserve().result(DEADLINE_SECONDS) for _ in range(_seats_of(engine))]
        taken = Counter(seat.worker.worker_id for seat in seats)
        assert taken == {worker.worker_id: 2 for worker in engine.workers()}
        assert all(worker.status is WorkerStatus.BUSY for worker in engine.workers())
        first, second = engine.reserve(), engine.reserve()
        seats.pop().release()
        seats.append(first.result(DEADLINE_SECONDS))
        assert not second.done()
        assert second.cancel()
        for seat in seats:
            seat.release()
            seat.release()
        wait_until(
            lambda: {worker.status for worker in engine.workers()} == {WorkerStatus.IDLE},
            "the seats to be free",
        )

    def test_a_seat_takes_its_chunk_to_its_worker_and_is_free_after_it(
        self, engine: Engine
    ) -> None:
        for _ in range(2 * _seats_of(engine)):
            seat = engine.reserve().result(DEADLINE_SECONDS)
            facts = engine.submit(describe, None, seat=seat).result(DEADLINE_SECONDS)
            assert facts["worker_id"] == seat.worker.worker_id
            assert facts["host"] == seat.worker.host
            seat.release()

    def test_a_seat_is_for_one_chunk(self, engine: Engine) -> None:
        seat = engine.reserve().result(DEADLINE_SECONDS)
        assert engine.submit(echo, 1, seat=seat).result(DEADLINE_SECONDS) == 1
        with pytest.raises(EngineError, match="ask anew"):
            engine.submit(echo, 2, seat=seat).result(DEADLINE_SECONDS)

    def test_a_chunk_that_cannot_be_sent_releases_its_seat(self, engine: Engine) -> None:
        for _ in range(_seats_of(engine) + 1):
            seat = engine.reserve().result(DEADLINE_SECONDS)
            with pytest.raises(TypeError, match="top level"):
                engine.submit(lambda context, payload: payload, 1, seat=seat)

    def test_the_seats_of_a_group_are_on_one_worker(self, engine: Engine) -> None:
        first = engine.reserve(group="job").result(DEADLINE_SECONDS)
        second = engine.reserve(group="job").result(DEADLINE_SECONDS)
        third = engine.reserve(group="job")
        assert first.worker.worker_id == second.worker.worker_id
        first.release()
        assert third.result(DEADLINE_SECONDS).worker.worker_id == second.worker.worker_id
        second.release()
        third.result().release()

    def test_who_asks_to_be_alone_gets_a_worker_without_other_chunks(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        seats = [engine.reserve().result(DEADLINE_SECONDS) for _ in range(_seats_of(engine))]
        alone = engine.reserve(alone=True)
        others = [engine.reserve() for _ in range(_seats_of(engine))]
        for seat in seats:
            seat.release()
        mine = alone.result(DEADLINE_SECONDS)
        running = engine.submit(note_and_wait, (str(tmp_path), "began", "gate"), seat=mine)
        wait_until((tmp_path / "began").exists, "the chunk to begin")
        given = [other for other in others if other.done()]
        assert mine.worker.worker_id not in {other.result().worker.worker_id for other in given}
        (tmp_path / "gate").touch()
        running.result(DEADLINE_SECONDS)
        for other in others:
            other.result(DEADLINE_SECONDS).release()

    def test_a_chunk_tells_of_its_progress(self, engine: Engine, tmp_path: Path) -> None:
        running = engine.submit(go_on_until_stopped, (str(tmp_path), "began"))
        wait_until(
            lambda: any(worker.images_in_chunk for worker in engine.workers()), "some progress"
        )
        engine.stop(running)
        with pytest.raises(ChunkStopped):
            running.result(DEADLINE_SECONDS)

    def test_a_chunk_that_is_stopped_ends_soon_and_leaves_its_worker_to_others(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        running = [
            engine.submit(go_on_until_stopped, (str(tmp_path), f"began-{number}"))
            for number in range(_seats_of(engine))
        ]
        waiting = engine.submit(note_and_wait, (str(tmp_path), "unwanted", "gate"))
        wait_until(lambda: len(list(tmp_path.glob("began-?"))) == len(running), "all to begin")
        engine.stop(waiting)
        for chunk in running:
            engine.stop(chunk)
        assert waiting.cancelled()
        for chunk in running:
            error = chunk.exception(DEADLINE_SECONDS)
            assert isinstance(error, ChunkStopped)
            assert not error.retryable
        assert engine.submit(echo, 1).result(DEADLINE_SECONDS) == 1
        assert not (tmp_path / "unwanted").exists()

    def test_to_stop_what_has_ended_does_nothing(self, engine: Engine) -> None:
        done = engine.submit(echo, 1)
        assert done.result(DEADLINE_SECONDS) == 1
        engine.stop(done)
        assert done.result() == 1

    def test_starting_again_changes_nothing(self, engine: Engine) -> None:
        before = engine.workers()
        engine.start()
        assert [w.worker_id for w in engine.workers()] == [w.worker_id for w in before]


class EngineLifeSuite:
    """What every engine must do around its start and close.

    The fixture ``stopped`` gives an engine that is not started, and closes it afterwards.
    """

    def test_an_engine_that_was_not_started_refuses_chunks_and_has_no_workers(
        self, stopped: Engine
    ) -> None:
        assert stopped.workers() == []
        with pytest.raises(EngineError, match="start"):
            stopped.submit(echo, 1).result(DEADLINE_SECONDS)
        with pytest.raises(EngineError, match="start"):
            stopped.reserve().result(DEADLINE_SECONDS)
        stopped.close()

    def test_closing_ends_waiting_chunks_closes_resources_and_it_can_start_anew(
        self, stopped: Engine, tmp_path: Path
    ) -> None:
        with ThreadPoolExecutor(4) as callers:
            for started in [callers.submit(stopped.start) for _ in range(4)]:
                started.result(DEADLINE_SECONDS)
        wait_until(stopped.workers, "a worker")
        pid, _ = stopped.submit(use_tally, str(tmp_path)).result(DEADLINE_SECONDS)
        futures = [
            stopped.submit(note_and_wait, (str(tmp_path), f"began-{number}", "gate"))
            for number in range(_seats_of(stopped))
        ]
        # Nothing but the close can end this one, however soon the others make room for it.
        last = stopped.submit(note_and_wait, (str(tmp_path), "began-last", "never"))
        seat = stopped.reserve()
        wait_until(lambda: list(tmp_path.glob("began-?")), "a chunk to begin")
        closer = threading.Thread(target=stopped.close)
        closer.start()
        # Engines of threads can only end when the chunks do.
        wait_until(lambda: not stopped.workers(), "the workers to be let go")
        (tmp_path / "gate").touch()
        closer.join(DEADLINE_SECONDS)
        assert not closer.is_alive()
        error = last.exception(DEADLINE_SECONDS)
        assert isinstance(error, EngineError)
        assert not wait([seat], DEADLINE_SECONDS).not_done  # It may have come in the meantime.
        assert error.retryable
        assert not wait(futures, DEADLINE_SECONDS).not_done
        assert (tmp_path / f"closed-{pid}").exists()

        stopped.start()
        assert stopped.submit(echo, 2).result(DEADLINE_SECONDS) == 2
        stopped.close()
        stopped.close()
        assert stopped.workers() == []
