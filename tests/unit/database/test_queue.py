from __future__ import annotations

import threading
import time

import pytest

from imagedex.database.queue import WriteQueue


def wait_for_waiters(queue: WriteQueue, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(queue._waiting) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_turns_are_given_in_the_order_of_coming() -> None:
    queue = WriteQueue()
    order: list[int] = []

    def take(number: int) -> None:
        with queue.turn():
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(10)]
    with queue.turn():
        for waiting, thread in enumerate(threads, start=1):
            thread.start()
            wait_for_waiters(queue, waiting)
    for thread in threads:
        thread.join()
    assert order == list(range(10))


def test_a_thread_cannot_wait_for_itself() -> None:
    queue = WriteQueue()
    with queue.turn(), pytest.raises(RuntimeError, match="already inside"), queue.turn():
        pass
    with queue.turn():
        pass


def test_a_turn_ends_with_an_error() -> None:
    queue = WriteQueue()
    with pytest.raises(ZeroDivisionError), queue.turn():
        raise ZeroDivisionError
    with queue.turn():
        pass
