"""Leases: who may run what, and until when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from imagedex.core.errors import LeaseLost
from imagedex.jobs import ChunkState, JobKind, JobStatus, JobStore, Lane, Priority
from imagedex.testing.job_store.making import ManualClock, make_done, make_new_job
from imagedex.testing.job_store.suite import JobStoreSuite


class JobLeases(JobStoreSuite):
    def test_a_leased_job_runs(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        clock.advance(5)
        lease = self.lease("me")
        assert (lease.job.job_id, lease.owner) == (job.job_id, "me")
        assert lease.job.status is JobStatus.RUNNING
        assert lease.job.started_at is not None
        assert (lease.job.started_at - job.created_at).total_seconds() == 5
        assert job_store.lease_next("other") is None

    def test_one_job_runs_per_index(self, job_store: JobStore, index_ids: tuple[int, int]) -> None:
        for index_id in index_ids:
            for key in "xy":
                job_store.submit(make_new_job(index_id, key))
        leases = [self.lease("a"), self.lease("b")]
        assert sorted(lease.job.index_id for lease in leases) == sorted(index_ids)
        assert job_store.lease_next("c") is None
        job_store.finish(leases[0], JobStatus.COMPLETED, None)
        assert self.lease("c").job.index_id == leases[0].job.index_id

    def test_fences_of_an_index_rise(self, job_store: JobStore, index_id: int) -> None:
        job_store.submit(make_new_job(index_id))
        fences = []
        for _ in range(3):
            lease = self.lease()
            fences.append(lease.fence)
            job_store.requeue(lease, error=None, delay_seconds=0, count_attempt=False)
        assert fences == sorted(set(fences))
        job_store.raise_fence(index_id, 50)
        job_store.raise_fence(index_id, 7)
        lease = self.lease()
        assert lease.fence == 51
        # What goes before the lease that is held, and behind the next one.
        assert job_store.next_fence(index_id, above=20) == 52
        assert job_store.next_fence(index_id, above=80) == 81
        job_store.requeue(lease, error=None, delay_seconds=0, count_attempt=False)
        assert self.lease().fence == 82

    def test_higher_priority_goes_first_and_then_age(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        submitted = {}
        for name in ("low", "normal", "high", "high later"):
            priority = Priority[name.split()[0].upper()]
            submitted[name] = job_store.submit(make_new_job(index_id, name, priority=priority))
            clock.advance(1)
        order = []
        for _ in submitted:
            lease = self.lease()
            order.append(lease.job.job_id)
            job_store.finish(lease, JobStatus.COMPLETED, None)
        names = ("high", "high later", "normal", "low")
        assert order == [submitted[name].job_id for name in names]

    def test_a_job_that_waits_rises(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        low = job_store.submit(make_new_job(index_id, "low", priority=Priority.LOW))
        clock.advance(599)
        normal = job_store.submit(make_new_job(index_id, "normal"))
        lease = self.lease()
        assert lease.job.job_id == normal.job_id
        job_store.requeue(lease, error=None, delay_seconds=0, count_attempt=False)
        clock.advance(2)
        assert self.lease().job.job_id == low.job_id

    def test_a_running_job_yields_to_a_higher_priority_only(
        self, job_store: JobStore, index_ids: tuple[int, int]
    ) -> None:
        job_store.submit(make_new_job(index_ids[0]))
        lease = self.lease()
        job_store.submit(make_new_job(index_ids[0], "same"))
        job_store.submit(make_new_job(index_ids[1], "elsewhere", priority=Priority.HIGH))
        assert not job_store.should_yield(lease)
        high = job_store.submit(make_new_job(index_ids[0], "high", priority=Priority.HIGH))
        assert job_store.should_yield(lease)
        job_store.request_cancel(high.job_id)
        assert not job_store.should_yield(lease)

    def test_a_rebuild_runs_beside_one_other_job_of_its_index(
        self, job_store: JobStore, index_ids: tuple[int, int]
    ) -> None:
        index_id = index_ids[0]
        for key in ("one", "two"):
            job_store.submit(make_new_job(index_id, key))
            job_store.submit(replace(make_new_job(index_id, f"re{key}"), kind=JobKind.REBUILD))
        leases = [self.lease(), self.lease()]
        assert {lease.job.kind for lease in leases} == {JobKind.FULL, JobKind.REBUILD}
        assert leases[0].fence < leases[1].fence
        assert job_store.lease_next("b") is None
        for lane in Lane:
            assert job_store.is_running(index_id, lane)
            assert not job_store.is_running(index_ids[1], lane)
        rebuild = next(lease for lease in leases if lease.job.kind is JobKind.REBUILD)
        job_store.finish(rebuild, JobStatus.COMPLETED, None)
        assert not job_store.is_running(index_id, Lane.UPKEEP)
        assert self.lease().job.kind is JobKind.REBUILD
        assert job_store.lease_next("b") is None

    def test_a_lease_can_be_asked_for_in_one_lane(
        self, job_store: JobStore, index_ids: tuple[int, int]
    ) -> None:
        for index_id in index_ids:
            rebuild = replace(make_new_job(index_id, "rebuild"), kind=JobKind.REBUILD)
            job_store.submit(rebuild)
        assert job_store.lease_next("a", [Lane.FLOW]) is None
        flow = job_store.submit(make_new_job(index_ids[1]))
        lease = job_store.lease_next("a", [Lane.FLOW])
        assert lease is not None
        assert lease.job.job_id == flow.job_id
        assert job_store.lease_next("a", [Lane.FLOW]) is None
        assert self.lease().job.kind is JobKind.REBUILD

    def test_a_job_yields_only_to_those_of_its_lane(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        job_store.submit(replace(make_new_job(index_id, "rebuild"), kind=JobKind.REBUILD))
        leases = {lease.job.kind: lease for lease in (self.lease(), self.lease())}
        job_store.submit(make_new_job(index_id, "high", priority=Priority.HIGH))
        assert job_store.should_yield(leases[JobKind.FULL])
        assert not job_store.should_yield(leases[JobKind.REBUILD])

    def test_a_restore_goes_before_all_others(self, job_store: JobStore, index_id: int) -> None:
        for key in ("running", "waiting"):
            job_store.submit(make_new_job(index_id, key, priority=Priority.HIGH))
        lease = self.lease()
        assert not job_store.should_yield(lease)
        new = make_new_job(index_id, "restore", priority=Priority.HIGH)
        job_store.submit(replace(new, kind=JobKind.RESTORE))
        assert job_store.should_yield(lease)
        job_store.requeue(lease, error=None, delay_seconds=0, count_attempt=False)
        assert self.lease().job.kind is JobKind.RESTORE

    def test_a_job_in_back_off_makes_nobody_yield(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id, "high", priority=Priority.HIGH))
        lease = self.lease()
        job_store.requeue(lease, error="It broke.", delay_seconds=5, count_attempt=True)
        job_store.submit(make_new_job(index_id, "low", priority=Priority.LOW))
        low = self.lease()
        assert low.job.priority is Priority.LOW
        assert not job_store.should_yield(low)
        clock.advance(5)
        assert job_store.should_yield(low)

    def test_a_job_that_rose_has_its_turn_before_it_yields(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id, "low", priority=Priority.LOW))
        clock.advance(1200)
        job_store.submit(make_new_job(index_id, "high", priority=Priority.HIGH))
        lease = self.lease()
        assert lease.job.priority is Priority.LOW
        assert not job_store.should_yield(lease)
        clock.advance(600)
        assert job_store.should_yield(lease)

    def test_a_renewed_lease_is_not_taken_over(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease("a")
        for _ in range(3):
            clock.advance(9)
            job_store.renew(lease)
            assert job_store.lease_next("b") is None

    def test_an_expired_lease_is_taken_over_at_once(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id))
        stale = self.lease("a")
        clock.advance(10)
        lease = self.lease("b")
        assert lease.job.job_id == stale.job.job_id
        assert lease.fence > stale.fence

    def test_an_expired_lease_that_nobody_took_is_still_held(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease("a")
        clock.advance(60)
        job_store.renew(lease)
        assert job_store.lease_next("b") is None

    def test_a_stale_owner_is_refused_everything(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id))
        stale = self.lease("a")
        self.plan(stale, "/1 /2", "/3")
        self.embed(stale, make_done(0))
        clock.advance(10)
        # The same name again, as after a restart: the fence alone tells them apart.
        self.lease("a")
        before = job_store.get(stale.job.job_id)

        def assert_held() -> None:
            with self._database.transaction() as transaction:
                job_store.assert_held(transaction, stale)

        calls: list[Callable[[], Any]] = [
            assert_held,
            lambda: job_store.renew(stale),
            lambda: job_store.is_cancel_requested(stale),
            lambda: job_store.should_yield(stale),
            lambda: job_store.requeue(stale, error=None, delay_seconds=0, count_attempt=True),
            lambda: job_store.finish(stale, JobStatus.COMPLETED, None),
            lambda: self.plan(stale, "/9"),
            lambda: self.embed(stale, make_done(1, indexed=1)),
            lambda: job_store.replan_chunks(stale, [0]),
        ]
        for call in calls:
            with pytest.raises(LeaseLost, match=stale.job.job_id):
                call()
        assert job_store.get(stale.job.job_id) == before
        assert self.numbers(stale.job.job_id, ChunkState.EMBEDDED) == [0]
        assert self.numbers(stale.job.job_id, ChunkState.PLANNED) == [1]

    def test_the_leases_of_a_former_life_expire_and_no_others(
        self, job_store: JobStore, index_ids: tuple[int, int]
    ) -> None:
        for index_id in index_ids:
            job_store.submit(make_new_job(index_id))
        mine, other = self.lease("home_1:x"), self.lease("homeX1:x")
        assert job_store.expire_own("home_1:") == 1
        taken = self.lease("home_1:y")
        assert taken.job.job_id == mine.job.job_id
        assert job_store.lease_next("home_1:y") is None
        job_store.renew(other)

    def test_a_poison_job_waits_longer_each_time_and_fails(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        self.lease()
        for delay_seconds in (0, 1, 2, 4, 8, 16, 32, 60, 60):
            clock.advance(10)
            if delay_seconds:
                assert job_store.lease_next("a") is None
                clock.advance(delay_seconds - 0.5)
                assert job_store.lease_next("a") is None
                clock.advance(0.5)
            self.lease()
        clock.advance(10)
        assert job_store.lease_next("a") is None
        failed = job_store.get(job.job_id)
        assert failed.status is JobStatus.FAILED
        assert failed.finished_at is not None
        assert failed.error is not None
        assert "10 times" in failed.error

    def test_a_checkpoint_forgives_crashes(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        self.plan(self.lease(), *(f"/{number}" for number in range(9)))
        for number in range(8):
            clock.advance(10)
            # At once, as after a first crash.
            self.embed(self.lease(), make_done(number, indexed=1))
        assert job_store.get(job.job_id).status is JobStatus.RUNNING

    def test_a_checkpoint_forgives_errors(self, job_store: JobStore, index_id: int) -> None:
        job = job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1", "/2")
        job_store.requeue(lease, error="It broke.", delay_seconds=0, count_attempt=True)
        assert job_store.attempts_without_progress(job.job_id) == 1
        lease = self.lease()
        assert job_store.attempts_without_progress(job.job_id) == 1
        self.embed(lease, make_done(0, indexed=1))
        assert job_store.attempts_without_progress(job.job_id) == 0

    def test_crashes_do_not_count_as_errors(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        self.lease()
        for _ in range(9):
            clock.advance(10)
            if job_store.lease_next("a") is None:  # Given up now; it waits for its back-off.
                clock.advance(60)
                self.lease()
        assert job_store.attempts_without_progress(job.job_id) == 0

    def test_errors_do_not_count_as_crashes(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        for _ in range(9):
            job_store.requeue(self.lease(), error="x", delay_seconds=0, count_attempt=True)
        self.lease()
        clock.advance(10)
        self.lease()  # At once, as after a first crash.
        assert job_store.attempts_without_progress(job.job_id) == 9

    def test_a_requeued_job_keeps_its_checkpoint_and_waits_its_delay(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job = job_store.submit(make_new_job(index_id))
        lease = self.lease()
        self.plan(lease, "/1 /2", "/3")
        self.embed(lease, make_done(0))
        job_store.requeue(lease, error="It broke.", delay_seconds=8, count_attempt=True)
        waiting = job_store.get(job.job_id)
        assert (waiting.status, waiting.error) == (JobStatus.QUEUED, "It broke.")
        assert job_store.attempts_without_progress(job.job_id) == 1
        assert job_store.lease_next("a") is None
        clock.advance(8)
        again = self.lease()
        assert (again.job.is_planned, again.job.error) == (True, None)
        assert self.numbers(job.job_id, ChunkState.PLANNED) == [1]
        assert self.progress(job.job_id) == (3, 2, 0)

    def test_a_finished_job_tells_how_it_ended(
        self, job_store: JobStore, index_id: int, clock: ManualClock
    ) -> None:
        job_store.submit(make_new_job(index_id))
        lease = self.lease()
        clock.advance(3)
        ended = job_store.finish(lease, JobStatus.FAILED, "The model is gone.")
        assert ended == job_store.get(lease.job.job_id)
        assert (ended.status, ended.error) == (JobStatus.FAILED, "The model is gone.")
        assert ended.finished_at is not None
        assert ended.finished_at.timestamp() == clock()
        with pytest.raises(LeaseLost):
            job_store.renew(lease)

    def test_a_paused_job_is_active_and_can_be_cancelled(
        self, job_store: JobStore, index_id: int
    ) -> None:
        job_store.submit(make_new_job(index_id))
        paused = job_store.finish(self.lease(), JobStatus.PAUSED, "Confirm the removal.")
        assert (paused.status, paused.finished_at) == (JobStatus.PAUSED, None)
        assert job_store.lease_next("a") is None
        assert job_store.submit(make_new_job(index_id)).job_id == paused.job_id
        assert job_store.active_job_ids(index_id) == [paused.job_id]
        assert job_store.request_cancel(paused.job_id).status is JobStatus.CANCELLED

    def test_a_job_cannot_finish_as_running(self, job_store: JobStore, index_id: int) -> None:
        job_store.submit(make_new_job(index_id))
        with pytest.raises(ValueError, match="running"):
            job_store.finish(self.lease(), JobStatus.RUNNING, None)
