"""Whether this process runs the jobs or stands by for the one that does."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

import structlog

from imagedex.core.errors import ImagedexError, OwnershipLost
from imagedex.database import RENEW_SECONDS, Ownership
from imagedex.engine import WorkerInfo

_POLL_SECONDS = 1.0
_CLOSE_SECONDS = 10.0
_EXIT_STATUS = 75  # EX_TEMPFAIL: a supervisor is to start it again.

_log = structlog.get_logger(__name__)


class Role(StrEnum):
    """What a process is to the jobs of its database."""

    LEADER = "leader"  # It runs them.
    STANDBY = "standby"  # Another does, or nobody at this moment; queries are answered here too.


class OneDuty(Protocol):
    """What the leader does, in one life."""

    def start(self) -> None:
        """Begin. It is closed also when this raises."""
        ...

    def workers(self) -> Sequence[WorkerInfo]:
        """Return the workers that are connected."""
        ...

    def stalled_threads(self, patience_seconds: float) -> list[str]:
        """Return the threads that run jobs and no longer do."""
        ...

    def close(self, *, is_lost: bool = False) -> bool:
        """Stop, and say whether all has; when the right to it is lost, as fast as can be."""
        ...


class Controller:
    """Has a duty while it owns the jobs. Safe to call from several threads.

    Where nobody can take the ownership away, it has it from ``start`` to ``close``. Where others
    wait, one thread tries each second to take it, begins a duty, and ends it when the ownership is
    lost; another renews it meanwhile, so that storage which hangs does not lose it. What cannot be
    ended within ten seconds ends with the process: it must not go on beside the new leader.
    """

    def __init__(
        self,
        ownership: Ownership,
        make_duty: Callable[[], OneDuty],
        *,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        """Take the ownership and what makes the duty; nothing is begun."""
        self._ownership = ownership
        self._make_duty = make_duty
        self._end_process = end_process
        self._duty: OneDuty | None = None
        self._closing = threading.Event()
        self._over = threading.Event()  # The duty is to end: it is lost, or the process closes.
        self._lost = threading.Event()
        self._ended = threading.Event()  # The duty that was lost has come to its end.
        self._begun = threading.Event()  # A duty has, or could not.
        self._thread: threading.Thread | None = None

    @property
    def role(self) -> Role:
        """What this process is at this moment."""
        return Role.STANDBY if self._duty is None else Role.LEADER

    def workers(self) -> Sequence[WorkerInfo]:
        """Return the workers of this process."""
        duty = self._duty
        return () if duty is None else duty.workers()

    def stalled_threads(self, patience_seconds: float) -> list[str]:
        """Return the threads that run jobs in this process and no longer do; never blocks."""
        duty = self._duty
        return [] if duty is None else duty.stalled_threads(patience_seconds)

    def start(self, *, may_stand_by: bool) -> bool:
        """Take the ownership, or begin to wait for it; return whether this process is to lead.

        Where others do not wait for it, or ``may_stand_by`` is false, its duty has begun when this
        returns. False when another has it and this process may not stand by. Raises HomeInUse when
        waiting for it is of no use, and what the beginning of the duty raises.
        """
        if not self._ownership.is_shared:
            self._ownership.try_take()
            self._begin()
            return True
        is_taken = not may_stand_by and self._ownership.try_take()
        if not is_taken and not may_stand_by:
            return False
        self._thread = threading.Thread(
            target=self._work, args=(is_taken,), name="controller", daemon=True
        )
        self._thread.start()
        if is_taken:
            self._begun.wait()
        return True

    def close(self) -> None:
        """End the duty, and give the ownership back."""
        self._closing.set()
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._end()
        self._ownership.release()

    def _begin(self) -> None:
        duty = self._make_duty()
        try:
            duty.start()
        except BaseException:
            duty.close(is_lost=self._lost.is_set())
            raise
        self._duty = duty

    def _end(self) -> bool:
        duty, self._duty = self._duty, None
        return duty is None or duty.close(is_lost=self._lost.is_set())

    def _work(self, is_taken: bool) -> None:
        while not self._closing.is_set():
            if is_taken or self._try_take():
                self._lead()
            is_taken = False
            self._closing.wait(_POLL_SECONDS)

    def _try_take(self) -> bool:
        try:
            return self._ownership.try_take()
        except ImagedexError as error:  # The database is away; it is told each time, in a line.
            _log.warning("ownership_not_taken", error=str(error))
        except Exception:
            # Whatever it was, this process must not cease to stand by.
            _log.exception("ownership_not_taken")
        return False

    def _lead(self) -> None:
        """Have a duty until the ownership is lost or the process closes."""
        _log.info("leading", term=self._ownership.term)
        for event in (self._lost, self._ended, self._over):
            event.clear()
        if self._closing.is_set():
            self._over.set()
        renewer = threading.Thread(target=self._keep, name="ownership", daemon=True)
        renewer.start()
        clock = threading.Thread(target=self._watch_clock, name="ownership-clock", daemon=True)
        clock.start()
        try:
            self._begin()
            self._begun.set()
            self._over.wait()
        except Exception:
            _log.exception("duty_not_begun")
        has_stopped = self._end()
        self._ended.set()
        renewer.join(_CLOSE_SECONDS)
        if self._lost.is_set() and not (has_stopped and not renewer.is_alive()):
            self._give_up()
        self._ownership.release()
        self._begun.set()
        _log.info("standing_by", term=self._ownership.term)

    def _watch_clock(self) -> None:
        """See that the duty ends in time when a renewal hangs, whatever else hangs with it."""
        while not self._ended.wait(RENEW_SECONDS / 2):
            if self._ownership.has_run_out:
                _log.error("ownership_lost", error="It was not renewed in time.")
                self._lose()
                return

    def _keep(self) -> None:
        """Renew the ownership until the duty has ended; see that it ends when that is lost."""
        while not self._ended.wait(RENEW_SECONDS):
            try:
                self._ownership.renew()
            except OwnershipLost as error:
                _log.error("ownership_lost", error=str(error))
                break
            except ImagedexError as error:
                _log.warning("ownership_not_renewed", error=str(error))
            except Exception:
                _log.exception("ownership_not_renewed")
        else:
            return
        self._lose()

    def _lose(self) -> None:
        """Have the duty end, or else the process."""
        self._lost.set()
        self._over.set()
        if not self._ended.wait(_CLOSE_SECONDS):
            self._give_up()

    def _give_up(self) -> None:
        _log.critical("duty_did_not_end", seconds=_CLOSE_SECONDS)
        self._end_process(_EXIT_STATUS)
