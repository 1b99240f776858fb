"""How far a job has come, as a bar on a terminal and as some lines elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from imagedex.cli.text import count_of, duration, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from imagedex.client import JobState

_RATE_WINDOW_SECONDS = 10.0
_LINE_INTERVAL_SECONDS = 5.0


class RateMeter:
    """The speed of late, so that a pause or a slow start does not distort the time left."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def observe(self, now_seconds: float, count: int) -> None:
        """Note that ``count`` were done by ``now_seconds``."""
        self._marks.append((now_seconds, count))
        while len(self._marks) > 2 and self._marks[1][0] <= now_seconds - _RATE_WINDOW_SECONDS:
            self._marks.popleft()

    @property
    def per_second(self) -> float | None:
        """The rate, or None while nothing was done."""
        if len(self._marks) < 2:
            return None
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        return (last - first) / (end - start) if end > start and last > first else None


class JobProgress:
    """Shows the states of one job as they come; use as a context manager.

    Elsewhere than on a terminal a line is written when the job comes to something else, and
    every few seconds, so that a log stays short.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._meter = RateMeter()
        self._bar: Progress | None = _make_bar(console) if console.is_terminal else None
        self._last_line_at: float | None = None
        self._last_phase: str | None = None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._bar.add_task("Waiting", total=None, facts="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, state: JobState) -> None:
        """Show a state of the job."""
        now = self._clock()
        if state.status != "queued" and state.progress.total_images:
            # Waiting and scanning say nothing of how fast images are indexed.
            self._meter.observe(now, state.progress.processed_images)
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0],
                description=_phase(state),
                total=state.progress.total_images or None,
                completed=state.progress.processed_images,
                facts=", ".join(self._facts(state)),
            )
        elif self._is_line_due(now, state):
            self._last_line_at = now
            self._last_phase = _phase(state)
            self._console.print(self._line(state), soft_wrap=True)

    def _is_line_due(self, now: float, state: JobState) -> bool:
        if self._last_line_at is None or _phase(state) != self._last_phase:
            return True
        return now - self._last_line_at >= _LINE_INTERVAL_SECONDS

    def _line(self, state: JobState) -> str:
        progress = state.progress
        if not progress.total_images:
            return _phase(state)
        done = f"{progress.processed_images:,} of {count_of(progress.total_images, 'image')}"
        percent = f"{progress.percent_complete:.0f} %"
        return f"{_phase(state)}: " + ", ".join([done, percent, *self._facts(state)])

    def _facts(self, state: JobState) -> list[str]:
        progress = state.progress
        facts = []
        rate = self._meter.per_second
        if rate is not None:
            facts.append(f"{rate:.1f} images/s")
        if progress.failed_images:
            facts.append(f"{progress.failed_images:,} failed")
        remaining = progress.total_images - progress.processed_images
        if rate is not None and remaining > 0:
            facts.append(f"{duration(remaining / rate)} left")
        return facts


def _phase(state: JobState) -> str:
    if state.status == "running":
        return "Indexing" if state.progress.total_images else "Looking for changes"
    return printable(state.status).capitalize()


def _make_bar(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
        console=console,
    )
