"""Work that costs little more for many than for one, done for all who wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Answers items that arrive from several threads, those that wait together by one call.

    Nobody waits for a batch to fill: an item that finds nothing under way is worked on at once,
    by its own thread. Items that arrive meanwhile wait, in order, and the first of them then
    works for all. So the wait is bounded: with at most ``max_items`` waiting, an item waits for
    one batch, the one that is under way.
    """

    def __init__(
        self, work: Callable[[list[Item]], Sequence[Answer | Exception]], *, max_items: int = 32
    ) -> None:
        """Take ``work``, which gives an answer for each item, in order; one call runs at a time.

        For an item that is itself at fault the answer is an exception, raised for it alone.
        """
        self._work = work
        self._max_items = max_items
        self._lock = threading.Lock()
        self._waiting: deque[_Ticket[Item, Answer]] = deque()
        self._is_busy = False

    def run(self, item: Item) -> Answer:
        """Return the answer to ``item``, or raise what the work raises for it alone."""
        ticket = _Ticket[Item, Answer](item)
        with self._lock:
            self._waiting.append(ticket)
            leads = not self._is_busy
            self._is_busy = True
        if not leads:
            ticket.woken.wait()
        if not ticket.is_done:
            self._lead()
        return ticket.take()

    def _lead(self) -> None:
        """Work for all that wait; the caller's ticket is the first of them."""
        with self._lock:
            count = min(len(self._waiting), self._max_items)
            batch = [self._waiting.popleft() for _ in range(count)]
        try:
            self._answer(batch)
        finally:
            with self._lock:
                successor = self._waiting[0] if self._waiting else None
                self._is_busy = successor is not None
            if successor is not None:
                successor.woken.set()
            for ticket in batch:
                ticket.is_done = True
                ticket.woken.set()

    def _answer(self, batch: list[_Ticket[Item, Answer]]) -> None:
        try:
            answers = self._work([ticket.item for ticket in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            # One bad item must not fail the others: each is tried by itself.
            for ticket in batch:
                self._answer([ticket])
            return
        for ticket, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                ticket.error = answer
            else:
                ticket.answer = answer


class _Ticket(Generic[Item, Answer]):
    __slots__ = ("answer", "error", "is_done", "item", "woken")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.answer: Answer
        self.error: Exception | None = None
        self.is_done = False
        self.woken = threading.Event()  # Answered, or the first of those that wait.

    def take(self) -> Answer:
        if self.error is not None:
            raise self.error
        if not hasattr(self, "answer"):  # The thread that worked for all was ended in its midst.
            raise RuntimeError("The batch was given up before this item was answered.")
        return self.answer
