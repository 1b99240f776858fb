"""Which chunk runs where, with workers that the test plays itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from imagedex.core.errors import ChunkStopped, EngineError, NoWorkers, WorkerLost
from imagedex.engine._dispatch import Call, Dispatcher, HostLost, Wish, WorkerDied
from imagedex.engine.interfaces import Seat, WorkerStatus


class Stage:
    """A dispatcher together with the calls that are on its workers."""

    def __init__(
        self,
        *,
        calls_per_worker: int = 1,
        no_worker_seconds: float = 3600,
        stall_seconds: float = 3600,
    ) -> None:
        self.on_worker: dict[str, list[tuple[bytes, asyncio.Future[bytes]]]] = {}
        self.calls_per_worker = calls_per_worker
        self.stopped: list[tuple[str, str]] = []
        self.killed: list[str] = []
        self.dispatcher = Dispatcher(
            self._run,
            self._settle,
            stop=self._stop,
            kill=self.killed.append,
            calls_per_worker=calls_per_worker,
            no_worker_seconds=no_worker_seconds,
            stall_seconds=stall_seconds,
            why_no_worker=lambda: "they are on holiday",
        )

    async def _stop(self, worker_id: str, call_id: str) -> None:
        self.stopped.append((worker_id, call_id))

    async def _run(self, worker_id: str, call: Call) -> bytes:
        sealed = call.sealed
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        calls = self.on_worker.setdefault(worker_id, [])
        assert len(calls) < self.calls_per_worker, "too many calls on one worker"
        calls.append((sealed, answer))
        try:
            return await answer
        finally:
            calls.remove((sealed, answer))
            if not calls:
                del self.on_worker[worker_id]

    def _settle(self, call: Call, answer: bytes | BaseException) -> None:
        if isinstance(answer, BaseException):
            call.future.set_exception(answer)
        else:
            call.future.set_result(answer)

    def add(self, worker_id: str, host: str = "here") -> None:
        self.dispatcher.add_worker(worker_id, host=host, slot=worker_id.partition(".")[0])

    def submit(self, sealed: bytes) -> Future[Any]:
        call = Call(future=Future(), sealed=sealed, name="chunk")
        self.dispatcher.submit(call)
        return call.future

    def reserve(
        self, group: str | None = None, *, alone: bool = False, apart_from: str | None = None
    ) -> Future[Seat]:
        wish = Wish(Future(), group=group, alone=alone, apart_from=apart_from)
        self.dispatcher.reserve(wish)
        return wish.future

    def submit_when_seated(self, sealed: bytes, group: str) -> Future[Any]:
        call = Call(future=Future(), sealed=sealed, name="chunk")
        seat = self.reserve(group)
        seat.add_done_callback(lambda seat: self.dispatcher.submit(call, seat.result()))
        return call.future

    def submit_on(self, seat: Future[Seat], sealed: bytes) -> Call:
        call = Call(future=Future(), sealed=sealed, name="chunk")
        self.dispatcher.submit(call, seat.result(0))
        return call

    def running(self) -> dict[str, bytes]:
        """What each worker runs; the names of its calls stand one after the other."""
        return {
            worker: b"".join(sealed for sealed, _ in calls)
            for worker, calls in sorted(self.on_worker.items())
        }

    async def finish(self, worker_id: str) -> None:
        sealed, answer = self.on_worker[worker_id][0]
        answer.set_result(sealed.upper())
        await settled()

    async def kill(self, worker_id: str, death: WorkerDied | None = None) -> None:
        self.dispatcher.remove_worker(worker_id)
        for _, answer in self.on_worker.get(worker_id, []):
            answer.set_exception(death or WorkerDied(worker_id))
        await settled()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scene())


def test_each_worker_gets_one_call_at_a_time_in_the_order_of_submission() -> None:
    async def scene() -> None:
        stage = Stage()
        futures = [stage.submit(bytes([letter])) for letter in b"abc"]
        stage.add("1")
        stage.add("2")
        await settled()
        assert stage.running() == {"1": b"a", "2": b"b"}
        await stage.finish("2")
        assert stage.running() == {"1": b"a", "2": b"c"}
        assert [future.done() for future in futures] == [False, True, False]
        assert futures[1].result() == b"B"

    play(scene)


def test_calls_are_spread_before_a_worker_gets_a_second_one() -> None:
    async def scene() -> None:
        stage = Stage(calls_per_worker=2)
        stage.add("1")
        stage.add("2")
        for letter in b"abcde":
            stage.submit(bytes([letter]))
        await settled()
        assert stage.running() == {"1": b"ac", "2": b"bd"}
        await stage.finish("2")
        assert stage.running() == {"1": b"ac", "2": b"de"}

    play(scene)


def test_the_calls_of_a_group_run_on_one_worker_and_let_others_pass() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.add("1")
        stage.add("2")
        for letter in b"abc":
            stage.submit_when_seated(bytes([letter]), "group")
        await settled()
        assert stage.running() == {"1": b"a"}
        stage.submit(b"x")
        stage.submit(b"y")
        await settled()
        assert stage.running() == {"1": b"a", "2": b"x"}
        await stage.finish("1")  # Before y, which came later.
        assert stage.running() == {"1": b"b", "2": b"x"}
        await stage.finish("2")
        assert stage.running() == {"1": b"b", "2": b"y"}
        await stage.finish("2")
        assert stage.running() == {"1": b"b"}
        await stage.finish("1")
        await stage.finish("1")
        stage.submit(b"other")
        stage.submit_when_seated(b"d", "group")  # Its worker is remembered while none of it runs.
        await settled()
        assert stage.running() == {"1": b"other"}

    play(scene)


def test_a_group_moves_to_another_worker_when_its_own_dies() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.add("1")
        stage.add("2")
        futures = [stage.submit_when_seated(bytes([letter]), "group") for letter in b"abc"]
        await settled()
        await stage.kill("1")
        assert isinstance(futures[0].exception(0), WorkerLost)
        seen = []
        while running := stage.running():
            seen.append(running)
            await stage.finish("2")
        assert seen == [{"2": b"b"}, {"2": b"c"}]
        assert [future.result(0) for future in futures[1:]] == [b"B", b"C"]

    play(scene)


def test_the_calls_of_a_dead_worker_run_again_each_alone_and_before_all_others() -> None:
    async def scene() -> None:
        stage = Stage(calls_per_worker=2)
        stage.add("1")
        futures = [stage.submit(bytes([letter])) for letter in b"abcd"]
        await settled()
        assert stage.running() == {"1": b"ab"}
        await stage.kill("1")
        stage.add("1.2")
        await settled()
        seen = []
        while running := stage.running():
            seen.append(running["1.2"])
            await stage.finish("1.2")
        assert seen == [b"a", b"b", b"cd", b"d"]
        assert [future.result() for future in futures] == [b"A", b"B", b"C", b"D"]

    play(scene)


def test_the_call_beside_a_deadly_one_is_not_given_up_with_it() -> None:
    async def scene() -> None:
        for order in ((b"deadly", b"innocent"), (b"innocent", b"deadly")):
            stage = Stage(calls_per_worker=2)
            futures = {name: stage.submit(name) for name in order}
            lives = 0
            while not all(future.done() for future in futures.values()):
                lives += 1
                assert lives < 10
                stage.add(f"1.{lives}")
                await settled()
                while (running := stage.running()) and b"deadly" not in running[f"1.{lives}"]:
                    await stage.finish(f"1.{lives}")
                await stage.kill(f"1.{lives}")
            assert isinstance(futures[b"deadly"].exception(0), EngineError)
            assert futures[b"innocent"].result(0) == b"INNOCENT"

    play(scene)


def test_a_call_that_has_to_run_alone_gets_its_worker_though_new_calls_keep_coming() -> None:
    async def scene() -> None:
        stage = Stage(calls_per_worker=2)
        stage.add("1")
        survivor = stage.submit(b"s")
        await settled()
        stage.add("2")
        for letter in b"abcde":
            stage.submit(bytes([letter]))
        await settled()
        assert stage.running() == {"1": b"sb", "2": b"ac"}
        await stage.kill("1")
        await stage.finish("2")
        assert stage.running() == {"2": b"c"}
        await stage.finish("2")
        assert stage.running() == {"2": b"s"}
        await stage.finish("2")
        assert survivor.result() == b"S"

    play(scene)


def test_the_call_of_a_dead_worker_is_run_once_more_before_all_others() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.add("1")
        first, second = stage.submit(b"a"), stage.submit(b"b")
        await settled()
        await stage.kill("1")
        assert not first.done()
        stage.add("1.2")
        await settled()
        assert stage.running() == {"1.2": b"a"}
        await stage.finish("1.2")
        await stage.finish("1.2")
        assert (first.result(), second.result()) == (b"A", b"B")

    play(scene)


def test_a_call_that_kills_two_workers_is_given_up_and_the_one_behind_it_is_not() -> None:
    async def scene() -> None:
        stage = Stage()
        deadly, innocent = stage.submit(b"deadly"), stage.submit(b"innocent")
        for worker in ("1", "1.2"):
            stage.add(worker)
            await settled()
            assert stage.running() == {worker: b"deadly"}
            await stage.kill(worker)
        error = deadly.exception(0)
        assert isinstance(error, EngineError)
        assert isinstance(error.__cause__, WorkerDied)
        stage.add("1.3")
        await settled()
        await stage.finish("1.3")
        assert innocent.result() == b"INNOCENT"

    play(scene)


def test_a_cancelled_call_is_passed_over() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.add("1")
        running, cancelled, next_one = (stage.submit(bytes([letter])) for letter in b"abc")
        assert cancelled.cancel()
        await settled()
        assert not running.cancel()
        await stage.finish("1")
        assert stage.running() == {"1": b"c"}
        assert not next_one.done()

    play(scene)


def test_calls_that_find_no_worker_for_too_long_are_given_up_with_the_reason() -> None:
    async def scene() -> None:
        stage = Stage(no_worker_seconds=0.001)
        waiting, cancelled = stage.submit(b"a"), stage.submit(b"b")
        cancelled.cancel()
        error = await asyncio.get_running_loop().run_in_executor(None, waiting.exception, 30)
        assert isinstance(error, NoWorkers)
        assert error.retryable
        assert "on holiday" in str(error)
        assert cancelled.cancelled()
        stage.add("1")
        later = stage.submit(b"c")
        await settled()
        await stage.finish("1")
        assert later.result() == b"C"

    play(scene)


def test_a_worker_that_comes_in_time_ends_the_wait() -> None:
    async def scene() -> None:
        stage = Stage(no_worker_seconds=3600)
        waiting = stage.submit(b"a")
        await settled()
        stage.add("1")
        await settled()
        await stage.finish("1")
        assert waiting.result() == b"A"
        # Nothing is left on the loop that would fire an hour later.
        assert stage.dispatcher._give_up is None

    play(scene)


def test_an_unforeseen_error_of_the_engine_reaches_the_caller_and_the_worker_goes_on() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.add("1")
        broken, next_one = stage.submit(b"a"), stage.submit(b"b")
        await settled()
        stage.on_worker["1"][0][1].set_exception(ZeroDivisionError("bug"))
        await settled()
        error = broken.exception(0)
        assert isinstance(error, EngineError)
        assert isinstance(error.__cause__, ZeroDivisionError)
        await stage.finish("1")
        assert next_one.result() == b"B"

    play(scene)


def test_closing_ends_running_waiting_and_later_calls() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.add("1")
        futures = [stage.submit(b"a"), stage.submit(b"b")]
        await settled()
        reason = EngineError("closed")
        stage.dispatcher.close(reason)
        futures.append(stage.submit(b"c"))
        await settled()
        assert [future.exception(0) for future in futures] == [reason] * 3
        assert stage.dispatcher.snapshot() == []

    play(scene)


def test_the_snapshot_tells_busy_from_idle() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.add("1")
        stage.add("2")
        stage.submit(b"a")
        await settled()
        assert [(w.worker_id, w.status) for w in stage.dispatcher.snapshot()] == [
            ("1", WorkerStatus.BUSY),
            ("2", WorkerStatus.IDLE),
        ]

    play(scene)


def test_a_chunk_on_a_seat_is_lost_with_its_worker_and_the_loss_tells_all_that_is_known() -> None:
    async def scene() -> None:
        stage = Stage(calls_per_worker=2)
        stage.add("1", "east")
        first, second = stage.reserve(), stage.reserve()
        calls = [stage.submit_on(first, b"a"), stage.submit_on(second, b"b")]
        await settled()
        stage.dispatcher.note_progress(calls[0].call_id, 40, ("/41", "/42"))
        assert [worker.images_in_chunk for worker in stage.dispatcher.snapshot()] == [40]
        await stage.kill("1")
        losses = [call.future.exception(0) for call in calls]
        assert all(isinstance(loss, WorkerLost) and loss.has_begun for loss in losses)
        assert [loss.was_alone for loss in losses] == [False, False]  # type: ignore[union-attr]
        told = losses[0]
        assert isinstance(told, WorkerLost)
        assert (told.worker_id, told.host, told.images_done) == ("1", "east", 40)
        assert told.in_hand == ("/41", "/42")
        assert told.retryable

    play(scene)


def test_a_chunk_that_had_a_worker_for_itself_was_alone() -> None:
    async def scene() -> None:
        stage = Stage(calls_per_worker=2)
        stage.add("1")
        seats = [stage.reserve(), stage.reserve()]
        call = stage.submit_on(seats[0], b"a")
        await settled()
        await stage.kill("1")
        loss = call.future.exception(0)
        assert isinstance(loss, WorkerLost)
        assert loss.was_alone
        late = stage.submit_on(seats[1], b"b").future.exception(0)
        assert isinstance(late, WorkerLost)
        assert (late.has_begun, late.was_alone) == (False, False)

    play(scene)


def test_the_worker_of_a_chunk_that_stands_still_is_ended_and_it_is_that_chunk_which_is_why() -> (
    None
):
    async def scene() -> None:
        stage = Stage(calls_per_worker=2, stall_seconds=0.3)
        stage.add("1")
        seats = [stage.reserve(), stage.reserve()]
        moving, standing = stage.submit_on(seats[0], b"a"), stage.submit_on(seats[1], b"b")
        for images in range(10_000):
            stage.dispatcher.note_progress(moving.call_id, images, ())
            await asyncio.sleep(0.001)
            if stage.killed:
                break
        assert stage.killed == ["1"]
        await stage.kill("1")
        losses = {}
        for name, call in (("moving", moving), ("standing", standing)):
            loss = call.future.exception(0)
            assert isinstance(loss, WorkerLost)
            losses[name] = loss
        assert (losses["moving"].was_alone, losses["standing"].was_alone) == (False, True)
        assert "no progress" in str(losses["standing"])
        assert stage.dispatcher._stall_check is None or not stage.dispatcher._running

    play(scene)


def test_who_asks_to_be_alone_has_one_worker_kept_and_the_others_go_on() -> None:
    async def scene() -> None:
        stage = Stage(calls_per_worker=2)
        stage.add("1")
        stage.add("2")
        for letter in b"abcd":
            stage.submit(bytes([letter]))
        await settled()
        assert stage.running() == {"1": b"ac", "2": b"bd"}
        alone = stage.reserve(alone=True)
        for letter in b"efgh":
            stage.submit(bytes([letter]))
        await stage.finish("1")
        assert stage.running() == {"1": b"c", "2": b"bd"}
        await stage.finish("2")
        assert stage.running() == {"1": b"c", "2": b"de"}
        await stage.finish("1")
        assert alone.result(0).worker.worker_id == "1"
        await stage.finish("2")
        assert stage.running() == {"2": b"ef"}
        alone.result().release()
        await settled()
        assert stage.running() == {"1": b"gh", "2": b"ef"}

    play(scene)


def test_a_wish_to_be_alone_that_is_withdrawn_keeps_nothing() -> None:
    async def scene() -> None:
        stage = Stage(calls_per_worker=2)
        stage.add("1")
        stage.submit(b"a")
        alone = stage.reserve(alone=True)
        stage.submit(b"b")
        await settled()
        assert stage.running() == {"1": b"a"}
        assert alone.cancel()
        await settled()
        assert stage.running() == {"1": b"ab"}

    play(scene)


def test_another_host_is_chosen_while_there_is_one() -> None:
    async def scene() -> None:
        stage = Stage(calls_per_worker=2)
        stage.add("1", "east")
        only = stage.reserve(alone=True, apart_from="east")
        assert only.result(0).worker.host == "east"
        only.result().release()
        await settled()
        stage.add("2", "west")
        stage.submit(b"a")
        stage.submit(b"b")
        await settled()
        other = stage.reserve(alone=True, apart_from="east")
        await stage.finish("1")
        assert not other.done()
        await stage.finish("2")
        assert other.result(0).worker.host == "west"

    play(scene)


def test_a_worker_that_drains_gets_nothing_more_and_loses_nothing() -> None:
    async def scene() -> None:
        stage = Stage(calls_per_worker=2)
        stage.add("1")
        stage.submit(b"a")
        stage.dispatcher.set_draining("1", is_draining=True)
        stage.submit(b"b")
        stage.submit_when_seated(b"c", "group")
        await settled()
        assert stage.running() == {"1": b"a"}
        assert [worker.status for worker in stage.dispatcher.snapshot()] == [WorkerStatus.DRAINING]
        stage.add("2")
        await settled()
        assert stage.running() == {"1": b"a", "2": b"bc"}
        await stage.finish("1")
        stage.dispatcher.set_draining("1", is_draining=False)
        stage.submit(b"d")
        await settled()
        assert stage.running() == {"1": b"d", "2": b"bc"}

    play(scene)


def test_a_call_that_runs_is_told_once_to_stop_and_one_that_was_stopped_runs_no_second_time() -> (
    None
):
    async def scene() -> None:
        stage = Stage()
        stage.add("1")
        future = stage.submit(b"a")
        await settled()
        for _ in range(2):
            stage.dispatcher.stop(future)
        stage.dispatcher.stop(Future())
        await settled()
        ((worker_id, _),) = stage.stopped
        assert worker_id == "1"
        await stage.kill("1")
        assert isinstance(future.exception(0), ChunkStopped)

    play(scene)


def test_closing_ends_those_who_wait_for_seats() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.add("1")
        held, waiting = stage.reserve(), stage.reserve()
        reason = EngineError("closed")
        stage.dispatcher.close(reason)
        assert waiting.exception(0) is reason
        assert stage.reserve().exception(0) is reason
        assert stage.submit_on(held, b"a").future.exception(0) is reason

    play(scene)


def test_a_chunk_on_a_seat_whose_host_is_lost_is_not_why() -> None:
    async def scene() -> None:
        stage = Stage(calls_per_worker=2)
        stage.add("1", "east")
        call = stage.submit_on(stage.reserve(), b"a")
        await settled()
        await stage.kill("1", HostLost("cut off"))
        loss = call.future.exception(0)
        assert isinstance(loss, WorkerLost)
        assert (loss.has_begun, loss.was_alone) == (False, False)

    play(scene)


def test_a_call_whose_host_is_lost_is_no_suspect_and_runs_beside_others() -> None:
    async def scene() -> None:
        stage = Stage(calls_per_worker=2)
        stage.add("cut")
        first = stage.submit(b"a")
        await settled()
        stage.add("other")
        second = stage.submit(b"b")
        await settled()
        await stage.kill("cut", HostLost("cut off"))
        # A call under which a worker died would wait for a worker of its own.
        assert stage.running() == {"other": b"ba"}
        await stage.finish("other")
        await stage.finish("other")
        assert (first.result(), second.result()) == (b"A", b"B")

    play(scene)


def test_a_call_that_takes_host_after_host_down_is_given_up() -> None:
    async def scene() -> None:
        stage = Stage()
        chunk = stage.submit(b"a")
        hosts = 0
        while not chunk.done():
            hosts += 1
            assert hosts < 10
            stage.add(str(hosts))
            await settled()
            await stage.kill(str(hosts), HostLost("cut off"))
        assert isinstance(chunk.exception(), EngineError)
        assert hosts > 3

    play(scene)
