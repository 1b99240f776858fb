"""Lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from imagedex.core.errors import InvalidRequest, NotFound
from imagedex.jobs import JobStatus, JobStore
from imagedex.testing.job_store.making import ManualClock, make_new_job
from imagedex.testing.job_store.suite import JobStoreSuite


class JobLists(JobStoreSuite):
    def test_jobs_are_listed_newest_first_in_stable_pages(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        made = []
        for number in range(5):
            made.append(job_store.submit(make_new_job(index_id, str(number))).job_id)
            clock.advance(0.001)
        first = job_store.list_jobs(status=None, limit=2, cursor=None)
        job_store.submit(make_new_job(index_id, "later"))
        second = job_store.list_jobs(status=None, limit=2, cursor=first.next_cursor)
        third = job_store.list_jobs(status=None, limit=2, cursor=second.next_cursor)
        listed = [job.job_id for page in (first, second, third) for job in page.items]
        assert listed == made[::-1]
        assert (first.total, third.total, third.next_cursor) == (5, 6, None)

    def test_jobs_of_one_moment_are_all_listed(self, job_store: JobStore, index_id: int) -> None:
        made = {job_store.submit(make_new_job(index_id, str(n))).job_id for n in range(7)}
        listed: list[str] = []
        cursor = None
        while True:
            page = job_store.list_jobs(status=None, limit=3, cursor=cursor)
            listed += [job.job_id for job in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert len(listed) == 7
        assert set(listed) == made

    def test_a_list_of_one_status_has_its_own_total(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        job_store.submit(make_new_job(index_id, "other"))
        job_store.request_cancel(job.job_id)
        page = job_store.list_jobs(status=JobStatus.CANCELLED, limit=10, cursor=None)
        assert [job.job_id for job in page.items] == [job.job_id]
        assert page.total == 1

    @pytest.mark.parametrize("cursor", ["", "x", "é", "WzFd", "W10", "bnVsbA", "W251bGwsIngiXQ"])
    def test_a_cursor_that_is_none_is_refused(self, job_store: JobStore, cursor: str) -> None:
        with pytest.raises(InvalidRequest, match="cursor"):
            job_store.list_jobs(status=None, limit=10, cursor=cursor)

    def test_a_limit_below_one_is_refused(self, job_store: JobStore) -> None:
        with pytest.raises(InvalidRequest, match="limit 0"):
            job_store.list_jobs(status=None, limit=0, cursor=None)

    def test_a_job_that_is_not_known_is_not_found(self, job_store: JobStore) -> None:
        calls: list[Callable[[str], Any]] = [
            job_store.get,
            job_store.retry,
            job_store.request_cancel,
            job_store.attempts_without_progress,
            lambda job_id: job_store.failures(job_id, limit=1, cursor=None),
        ]
        for call in calls:
            with pytest.raises(NotFound, match="idx_none"):
                call("idx_none")
