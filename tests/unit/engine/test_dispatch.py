"""Which chunk runs where, with workers that the test plays itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from imagedex.core.errors import EngineError
from imagedex.engine._dispatch import Call, Dispatcher, WorkerDied
from imagedex.engine.interfaces import WorkerStatus


class Stage:
    """A dispatcher together with the calls that are on its workers."""

    def __init__(self, *, calls_per_worker: int = 1, no_worker_seconds: float = 3600) -> None:
        self.on_worker: dict[str, list[tuple[bytes, asyncio.Future[bytes]]]] = {}
        self.calls_per_worker = calls_per_worker
        self.dispatcher = Dispatcher(
            self._run,
            self._settle,
            calls_per_worker=calls_per_worker,
            no_worker_seconds=no_worker_seconds,
            why_no_worker=lambda: "they are on holiday",
        )

    async def _run(self, worker_id: str, sealed: bytes) -> bytes:
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

    def submit(self, sealed: bytes, group: str | None = None) -> Future[Any]:
        call = Call(future=Future(), sealed=sealed, name="chunk", group=group)
        self.dispatcher.submit(call)
        return call.future

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

    async def kill(self, worker_id: str) -> None:
        self.dispatcher.remove_worker(worker_id)
        for _, answer in self.on_worker.get(worker_id, []):
            answer.set_exception(WorkerDied(worker_id))
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
        stage.dispatcher.add_worker("1")
        stage.dispatcher.add_worker("2")
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
        stage.dispatcher.add_worker("1")
        stage.dispatcher.add_worker("2")
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
        stage.dispatcher.add_worker("1")
        stage.dispatcher.add_worker("2")
        for letter in b"abc":
            stage.submit(bytes([letter]), "group")
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
        stage.submit(b"d", "group")  # Its worker is remembered while none of it runs.
        await settled()
        assert stage.running() == {"1": b"other"}

    play(scene)


def test_a_group_moves_to_another_worker_when_its_own_dies() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.dispatcher.add_worker("1")
        stage.dispatcher.add_worker("2")
        futures = [stage.submit(bytes([letter]), "group") for letter in b"abc"]
        await settled()
        await stage.kill("1")
        seen = []
        while running := stage.running():
            seen.append(running)
            await stage.finish("2")
        assert seen == [{"2": b"a"}, {"2": b"b"}, {"2": b"c"}]
        assert [future.result(0) for future in futures] == [b"A", b"B", b"C"]

    play(scene)


def test_the_calls_of_a_dead_worker_run_again_each_alone_and_before_all_others() -> None:
    async def scene() -> None:
        stage = Stage(calls_per_worker=2)
        stage.dispatcher.add_worker("1")
        futures = [stage.submit(bytes([letter])) for letter in b"abcd"]
        await settled()
        assert stage.running() == {"1": b"ab"}
        await stage.kill("1")
        stage.dispatcher.add_worker("1.2")
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
                stage.dispatcher.add_worker(f"1.{lives}")
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
        stage.dispatcher.add_worker("1")
        survivor = stage.submit(b"s")
        await settled()
        stage.dispatcher.add_worker("2")
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
        stage.dispatcher.add_worker("1")
        first, second = stage.submit(b"a"), stage.submit(b"b")
        await settled()
        await stage.kill("1")
        assert not first.done()
        stage.dispatcher.add_worker("1.2")
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
            stage.dispatcher.add_worker(worker)
            await settled()
            assert stage.running() == {worker: b"deadly"}
            await stage.kill(worker)
        error = deadly.exception(0)
        assert isinstance(error, EngineError)
        assert isinstance(error.__cause__, WorkerDied)
        stage.dispatcher.add_worker("1.3")
        await settled()
        await stage.finish("1.3")
        assert innocent.result() == b"INNOCENT"

    play(scene)


def test_a_cancelled_call_is_passed_over() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.dispatcher.add_worker("1")
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
        assert isinstance(error, EngineError)
        assert "on holiday" in str(error)
        assert cancelled.cancelled()
        stage.dispatcher.add_worker("1")
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
        stage.dispatcher.add_worker("1")
        await settled()
        await stage.finish("1")
        assert waiting.result() == b"A"
        # Nothing is left on the loop that would fire an hour later.
        assert stage.dispatcher._give_up is None

    play(scene)


def test_an_unforeseen_error_of_the_engine_reaches_the_caller_and_the_worker_goes_on() -> None:
    async def scene() -> None:
        stage = Stage()
        stage.dispatcher.add_worker("1")
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
        stage.dispatcher.add_worker("1")
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
        stage.dispatcher.add_worker("1")
        stage.dispatcher.add_worker("2")
        stage.submit(b"a")
        await settled()
        assert stage.dispatcher.snapshot() == [
            ("1", WorkerStatus.BUSY),
            ("2", WorkerStatus.IDLE),
        ]

    play(scene)
