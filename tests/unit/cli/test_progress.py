"""Progress of a job on a terminal and in a log."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from imagedex.cli.progress import JobProgress, RateMeter
from support.job_states import job_state


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Return what is written where no terminal is."""
    with io.StringIO() as stream:
        yield stream


def test_the_rate_is_that_of_the_last_seconds() -> None:
    meter = RateMeter()
    assert meter.per_second is None
    meter.observe(0.0, 0)
    assert meter.per_second is None
    meter.observe(1.0, 10)
    assert meter.per_second == pytest.approx(10.0)
    for second in range(2, 40):
        meter.observe(float(second), 10 + (second - 1) * 2)
    assert meter.per_second == pytest.approx(2.0)


def test_no_rate_is_claimed_while_nothing_is_done_or_no_time_passed() -> None:
    meter = RateMeter()
    meter.observe(5.0, 3)
    meter.observe(5.0, 9)
    assert meter.per_second is None
    meter.observe(30.0, 9)
    meter.observe(31.0, 9)
    assert meter.per_second is None


def test_a_log_gets_few_lines_with_rate_failures_and_time_left(log: io.StringIO) -> None:
    clock = Clock()
    console = Console(file=log, force_terminal=False, width=40)
    with JobProgress(console, clock=clock) as progress:
        progress.show(job_state(status="queued"))
        for step in range(101):
            clock.now += 0.125
            progress.show(job_state(total=1200, processed=step * 10, failed=step // 50))
        clock.now += 0.125
        progress.show(job_state(status="completed", total=1200, processed=1200, failed=2))

    lines = log.getvalue().splitlines()
    assert lines[0] == "Queued"
    assert len(lines) == 5
    assert lines[1] == "Indexing: 0 of 1,200 images, 0 %"
    assert lines[2] == "Indexing: 400 of 1,200 images, 33 %, 80.0 images/s, 10.0 s left"
    assert lines[3] == ("Indexing: 800 of 1,200 images, 67 %, 80.0 images/s, 1 failed, 5.0 s left")
    assert lines[4].startswith("Completed: 1,200 of 1,200 images, 100 %")


def test_before_its_plan_is_made_a_job_looks_for_changes(log: io.StringIO) -> None:
    with JobProgress(Console(file=log, force_terminal=False)) as progress:
        progress.show(job_state())

    assert log.getvalue() == "Looking for changes\n"


def test_a_terminal_gets_a_bar(log: io.StringIO) -> None:
    clock = Clock()
    console = Console(file=log, force_terminal=True, width=100, color_system=None)
    with JobProgress(console, clock=clock) as progress:
        progress.show(job_state(total=50, processed=0))
        clock.now += 1.0
        progress.show(job_state(total=50, processed=20, failed=1))

    assert "20/50" in log.getvalue()
    assert "20.0 images/s, 1 failed, 1.5 s left" in log.getvalue()
