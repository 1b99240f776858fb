"""One duty at a time, for as long as the ownership is held."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from imagedex.app import controller as controller_module
from imagedex.app.controller import Controller, Role
from imagedex.core.errors import HomeInUse, OwnershipLost, Unavailable
from imagedex.database import Transaction
from imagedex.engine import WorkerInfo, WorkerStatus
from support.waiting import wait_until


class _Ownership:
    """An ownership that a test gives and takes away."""

    def __init__(self, *, is_shared: bool = True) -> None:
        self.term = 0
        self.is_shared = is_shared
        self.is_free = True
        self.is_released = False
        self.renewals: list[Exception | None] = []  # What the next ones raise.
        self.renewed = 0
        self.has_run_out = False
        self.may_renew = threading.Event()
        self.may_renew.set()

    def try_take(self) -> bool:
        if not self.is_shared and not self.is_free:
            raise HomeInUse("It is in use.")
        if self.is_free:
            self.term += 1
            self.is_released = False
        is_taken, self.is_free = self.is_free, False
        return is_taken

    def renew(self) -> None:
        self.renewed += 1
        self.may_renew.wait()
        error = self.renewals.pop(0) if self.renewals else None
        if error is not None:
            raise error

    def require_held(self, transaction: Transaction) -> None:
        raise AssertionError("Nothing is written here.")

    def release(self) -> None:
        self.is_released = True


class _Duty:
    """A duty that says what became of it."""

    def __init__(self, *, start_error: Exception | None = None) -> None:
        self.start_error = start_error
        self.has_begun = False
        self.closed: list[bool] = []  # Whether it was lost, each time.
        self.can_close = True
        self.may_end = threading.Event()
        self.may_end.set()

    def start(self) -> None:
        if self.start_error is not None:
            raise self.start_error
        self.has_begun = True

    def workers(self) -> Sequence[WorkerInfo]:
        return [WorkerInfo("worker", "here", WorkerStatus.IDLE, slot="here/1")]

    def stalled_threads(self, patience_seconds: float) -> list[str]:
        return [f"stalled for {patience_seconds}"]

    def close(self, *, is_lost: bool = False) -> bool:
        self.may_end.wait()
        self.closed.append(is_lost)
        return self.can_close


class _Process:
    """A controller with its duties, and the statuses that it would have ended its process with."""

    def __init__(self, ownership: _Ownership) -> None:
        self.ownership = ownership
        self.duties: list[_Duty] = []
        self.start_error: Exception | None = None
        self.ended: list[int] = []
        self.controller = Controller(ownership, self._make, end_process=self.ended.append)

    def _make(self) -> _Duty:
        self.duties.append(_Duty(start_error=self.start_error))
        return self.duties[-1]

    def begin(self, *, may_stand_by: bool = True) -> bool:
        return self.controller.start(may_stand_by=may_stand_by)

    def leads(self) -> bool:
        return self.controller.role is Role.LEADER

    def wait_until_leading(self) -> None:
        wait_until(self.leads)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no clock."""
    monkeypatch.setattr(controller_module, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(controller_module, "RENEW_SECONDS", 0.01)


def test_what_nobody_takes_away_is_held_from_start_to_close() -> None:
    process = _Process(_Ownership(is_shared=False))
    assert not process.leads()
    assert process.begin()
    assert process.leads()
    assert [worker.worker_id for worker in process.controller.workers()] == ["worker"]
    assert process.controller.stalled_threads(3.0) == ["stalled for 3.0"]
    process.controller.close()
    assert not process.leads()
    assert process.controller.workers() == ()
    assert process.duties[0].closed == [False]
    assert process.ownership.is_released
    assert process.ownership.renewed == 0


def test_what_another_holds_for_good_is_told_at_the_start() -> None:
    process = _Process(_Ownership(is_shared=False))
    process.ownership.is_free = False
    with pytest.raises(HomeInUse):
        process.begin()
    assert process.duties == []
    process.controller.close()


def test_a_standby_leads_when_the_leader_is_gone() -> None:
    process = _Process(_Ownership())
    process.ownership.is_free = False
    assert process.begin()
    assert not process.leads()
    process.ownership.is_free = True
    process.wait_until_leading()
    wait_until(lambda: process.ownership.renewed > 2)
    process.controller.close()
    assert process.duties[0].closed == [False]
    assert process.ownership.is_released


def test_whoever_may_not_stand_by_leads_at_once_or_not_at_all() -> None:
    process = _Process(_Ownership())
    process.ownership.is_free = False
    assert not process.begin(may_stand_by=False)
    process.controller.close()
    other = _Process(_Ownership())
    assert other.begin(may_stand_by=False)
    assert other.leads()
    other.controller.close()


def test_a_leader_that_was_replaced_ends_its_duty_and_stands_by_for_the_next() -> None:
    process = _Process(_Ownership())
    assert process.begin()
    process.wait_until_leading()
    process.ownership.renewals = [Unavailable("Not now."), ValueError("?"), OwnershipLost("Gone.")]
    wait_until(lambda: process.duties[0].closed == [True])
    wait_until(lambda: not process.leads())
    process.ownership.is_free = True
    process.wait_until_leading()
    assert len(process.duties) == 2
    process.controller.close()
    assert process.duties[1].closed == [False]
    assert process.ended == []


@pytest.mark.parametrize("what_else_hangs", ["nothing", "the duty's end"])
def test_a_leader_whose_renewal_hangs_ends_its_duty_and_its_process(
    monkeypatch: pytest.MonkeyPatch, what_else_hangs: str
) -> None:
    monkeypatch.setattr(controller_module, "_CLOSE_SECONDS", 0.05)
    process = _Process(_Ownership())
    assert process.begin()
    process.wait_until_leading()
    process.ownership.may_renew.clear()
    before = process.ownership.renewed
    wait_until(lambda: process.ownership.renewed > before)  # This one hangs.
    if what_else_hangs != "nothing":
        process.duties[0].may_end.clear()
    process.ownership.has_run_out = True
    # A renewal that comes to its end one day must not meet the next duty.
    wait_until(lambda: process.ended == [75])
    process.duties[0].may_end.set()
    wait_until(lambda: process.duties[0].closed == [True])
    process.ownership.may_renew.set()
    process.ownership.has_run_out = False
    process.controller.close()


@pytest.mark.parametrize("hangs", [True, False])
def test_a_duty_that_does_not_end_ends_with_its_process(
    monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(controller_module, "_CLOSE_SECONDS", 0.05)
    process = _Process(_Ownership())
    assert process.begin()
    process.wait_until_leading()
    duty = process.duties[0]
    if hangs:
        duty.may_end.clear()
    else:
        duty.can_close = False
    process.ownership.renewals = [OwnershipLost("Gone.")]
    wait_until(lambda: process.ended == [75])
    duty.may_end.set()
    process.controller.close()


def test_a_duty_that_cannot_begin_is_closed_and_tried_again() -> None:
    process = _Process(_Ownership())
    process.start_error = Unavailable("The database is away.")
    assert process.begin()
    wait_until(lambda: bool(process.duties) and process.duties[0].closed == [False])
    process.start_error = None
    process.ownership.is_free = True
    process.wait_until_leading()
    process.controller.close()
