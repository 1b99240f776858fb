"""Jobs that are submitted at set times."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from imagedex.core.errors import StorageError
from imagedex.database import Database
from imagedex.jobs import (
    CronTimes,
    Job,
    JobKind,
    JobStatus,
    NewJob,
    Priority,
    Schedule,
    Scheduler,
    SqlJobStore,
)
from imagedex.testing.job_store import ManualClock
from support.waiting import wait_until

_DAY = 86_400.0


class _Scheduled:
    """A schedule of a rebuild each day at three, and what it has submitted."""

    def __init__(self, database: Database, index_id: int, clock: ManualClock) -> None:
        self.store = SqlJobStore(database, now=clock)
        self.clock = clock
        self.asked = 0
        self._index_id = index_id

    def requests(self) -> Sequence[NewJob]:
        self.asked += 1
        return [NewJob(self._index_id, JobKind.REBUILD, {}, Priority.NORMAL, "rebuild")]

    def scheduler(self, cron: str = "0 3 * * *") -> Scheduler:
        """Return what a controller starts with."""
        return Scheduler(
            self.store, [Schedule("rebuild", CronTimes(cron), self.requests)], now=self.clock
        )

    def jobs(self) -> tuple[Job, ...]:
        return self.store.list_jobs(status=None, limit=100, cursor=None).items

    def finish_all(self) -> None:
        """Let all jobs be done."""
        while (lease := self.store.lease_next("owner")) is not None:
            self.store.finish(lease, JobStatus.COMPLETED, None)


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    return sqlite_database


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 22, 2, 59, 50, tzinfo=UTC).timestamp())


@pytest.fixture
def scheduled(database: Database, index_ids: tuple[int, int], clock: ManualClock) -> _Scheduled:
    return _Scheduled(database, index_ids[0], clock)


def test_a_job_is_submitted_when_its_time_has_come_and_once(
    scheduled: _Scheduled, clock: ManualClock
) -> None:
    scheduler = scheduled.scheduler()
    assert scheduler.submit_due() == 10
    assert scheduled.jobs() == ()
    assert scheduled.asked == 0
    clock.advance(10)
    assert scheduler.submit_due() == 30  # The most that it sleeps.
    assert [job.kind for job in scheduled.jobs()] == [JobKind.REBUILD]
    scheduled.finish_all()
    scheduler.submit_due()
    assert len(scheduled.jobs()) == 1
    clock.advance(_DAY)
    scheduler.submit_due()
    assert len(scheduled.jobs()) == 2


def test_times_that_passed_while_no_controller_ran_are_made_up_for_once(
    scheduled: _Scheduled, clock: ManualClock
) -> None:
    scheduled.scheduler().submit_due()
    clock.advance(9.5 * _DAY)
    later = scheduled.scheduler()
    later.submit_due()
    assert len(scheduled.jobs()) == 1
    scheduled.finish_all()
    later.submit_due()
    assert len(scheduled.jobs()) == 1


def test_a_schedule_that_was_changed_begins_anew(scheduled: _Scheduled, clock: ManualClock) -> None:
    scheduled.scheduler().submit_due()
    clock.advance(5 * _DAY)
    changed = scheduled.scheduler("0 4 * * *")
    changed.submit_due()
    assert scheduled.jobs() == ()
    clock.advance(_DAY)
    changed.submit_due()
    assert len(scheduled.jobs()) == 1


def test_of_several_controllers_one_submits(scheduled: _Scheduled, clock: ManualClock) -> None:
    schedulers = [scheduled.scheduler() for _ in range(8)]
    schedulers[0].submit_due()
    clock.advance(_DAY)
    barrier = threading.Barrier(len(schedulers))
    submitted: list[str] = []
    # Their jobs are done at once, so that no de-duplication hides a second one.
    unsubscribe = scheduled.store.subscribe(lambda: submitted.append("job"))

    def submit(scheduler: Scheduler) -> None:
        barrier.wait()
        scheduler.submit_due()

    threads = [threading.Thread(target=submit, args=(one,)) for one in schedulers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    unsubscribe()
    assert submitted == ["job"]
    assert len(scheduled.jobs()) == 1


def test_what_cannot_be_submitted_is_due_still(scheduled: _Scheduled, clock: ManualClock) -> None:
    scheduled.scheduler().submit_due()
    clock.advance(_DAY)
    unknown = NewJob(999, JobKind.REBUILD, {}, Priority.NORMAL, "rebuild")
    broken = Scheduler(
        scheduled.store,
        [Schedule("rebuild", CronTimes("0 3 * * *"), lambda: [unknown])],
        now=clock,
    )
    with pytest.raises(Exception, match="no index with the number 999"):
        broken.submit_due()
    scheduled.scheduler().submit_due()
    assert len(scheduled.jobs()) == 1


def test_the_thread_submits_and_goes_on_after_an_error(
    scheduled: _Scheduled, clock: ManualClock
) -> None:
    scheduled.scheduler().submit_due()
    clock.advance(_DAY)

    def fail() -> Sequence[NewJob]:
        raise StorageError("The share is away.")

    broken = Scheduler(
        scheduled.store, [Schedule("rebuild", CronTimes("0 3 * * *"), fail)], now=clock
    )
    with capture_logs() as logs:
        broken.start()
        wait_until(lambda: any(log["event"] == "schedules_failed" for log in logs))
        broken.close()
    scheduler = scheduled.scheduler()
    scheduler.start()
    wait_until(lambda: len(scheduled.jobs()) == 1)
    scheduler.close()
    scheduled.scheduler().close()
