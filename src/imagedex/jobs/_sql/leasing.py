"""Who may run which job, and until when."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, case, func, select, update

from imagedex.database.tables import indexes, jobs
from imagedex.jobs._sql import plans
from imagedex.jobs._sql.rows import AnyRow, held_row, job_of, job_row
from imagedex.jobs.records import JobKind, JobStatus, Lane, Lease, Priority

# A waiting job rises by one level in this time, so that the lowest reaches the highest in twice
# as long. Long enough that priorities mean something while a burst of requests is worked off.
AGEING_SECONDS = 600.0

# A job that ends its process this often without a checkpoint would do so for ever. Fewer would
# blame a job for a server that somebody kills again and again while its workers still start.
MAX_CRASHES = 10
_MAX_BACKOFF_SECONDS = 60.0

_UPKEEP_KINDS = [kind.value for kind in JobKind if kind.lane is Lane.UPKEEP]

_NO_LEASE: dict[str, Any] = {
    "owner": None,
    "fence": None,
    "leased_at": None,
    "leased_level": None,
    "lease_until": None,
}


def has_work(connection: Connection, lanes: Collection[Lane], now: float) -> bool:
    """Say whether taking a lease in one of these lanes is worth a write transaction."""
    expired = select(jobs.c.job_id).where(*_expired(now)).limit(1)
    ready = select(jobs.c.job_id).where(*_ready(now, lanes)).limit(1)
    return any(connection.execute(query).first() is not None for query in (expired, ready))


def lease_next(
    connection: Connection,
    owner: str,
    lanes: Collection[Lane],
    lease_seconds: float,
    now: float,
) -> Lease | None:
    """Give up expired leases, then lease the job of these lanes that should run next."""
    for silent in connection.execute(select(jobs).where(*_expired(now))).all():
        _give_up(connection, silent, now)
    row = connection.execute(
        select(jobs.c.job_id, jobs.c.index_id, _level(now).label("level"))
        .where(*_ready(now, lanes))
        .order_by(_level(now).desc(), jobs.c.created_at, jobs.c.job_id)
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    of_index = indexes.c.index_id == row.index_id
    connection.execute(update(indexes).where(of_index).values(fence=indexes.c.fence + 1))
    fence = connection.execute(select(indexes.c.fence).where(of_index)).scalar_one()
    _change(
        connection,
        row.job_id,
        status=JobStatus.RUNNING.value,
        error=None,
        started_at=func.coalesce(jobs.c.started_at, now),
        owner=owner,
        fence=fence,
        leased_at=now,
        leased_level=row.level,
        lease_until=now + lease_seconds,
    )
    return Lease(job=job_of(job_row(connection, row.job_id)), owner=owner, fence=fence)


def renew(connection: Connection, lease: Lease, lease_seconds: float, now: float) -> None:
    """Extend the lease from now on."""
    held_row(connection, lease)
    _change(connection, lease.job.job_id, lease_until=now + lease_seconds)


def expire_own(connection: Connection, owner_prefix: str) -> int:
    """Expire all leases of owners with that prefix."""
    return connection.execute(
        update(jobs)
        .where(
            jobs.c.status == JobStatus.RUNNING.value,
            # Not LIKE, which takes % and _ for patterns and in SQLite ignores case.
            func.substr(jobs.c.owner, 1, len(owner_prefix)) == owner_prefix,
        )
        .values(lease_until=0.0)
    ).rowcount


def should_yield(connection: Connection, lease: Lease, now: float) -> bool:
    """Say whether a job of a higher level waits for the same lane of the index.

    A job that had risen keeps its level for as long as it takes to rise once more, and then
    falls back to its own priority: it gets its turn, but a long job of low priority
    that has risen once does not hold up everybody to its end.
    """
    row = held_row(connection, lease)
    has_turn = now - row.leased_at < AGEING_SECONDS
    level = row.leased_level if has_turn else row.priority
    query = select(jobs.c.job_id).where(
        jobs.c.status == JobStatus.QUEUED.value,
        jobs.c.not_before <= now,
        jobs.c.index_id == row.index_id,
        _is_upkeep(jobs) == (JobKind(row.kind).lane is Lane.UPKEEP),
        _level(now) > level,
    )
    return connection.execute(query.limit(1)).first() is not None


def requeue(
    connection: Connection,
    lease: Lease,
    *,
    error: str | None,
    delay_seconds: float,
    count_attempt: bool,
    now: float,
) -> None:
    """Put the job back into the line, or end it when it is to be cancelled."""
    row = held_row(connection, lease)
    if row.cancel_requested:
        end(connection, row, JobStatus.CANCELLED, error, now)
        return
    _change(
        connection,
        row.job_id,
        status=JobStatus.QUEUED.value,
        error=error,
        attempts=row.attempts + count_attempt,
        waiting_since=now,
        not_before=now + delay_seconds,
        **_NO_LEASE,
    )


def finish(
    connection: Connection, lease: Lease, status: JobStatus, error: str | None, now: float
) -> None:
    """End or pause the job, or run it once more when its request came again meanwhile."""
    if not status.is_final and status is not JobStatus.PAUSED:
        raise ValueError(f"A job cannot finish as {status}; expected a final status or paused.")
    row = held_row(connection, lease)
    goes_on = status is JobStatus.PAUSED or (status is JobStatus.COMPLETED and row.rerun_requested)
    if goes_on and row.cancel_requested:
        end(connection, row, JobStatus.CANCELLED, error, now)
    elif goes_on and status is JobStatus.COMPLETED:
        plans.forget(connection, row.job_id)
        restart(connection, row.job_id, now)
    else:
        end(connection, row, status, error, now)


def end(
    connection: Connection, row: AnyRow, status: JobStatus, error: str | None, now: float
) -> None:
    """Take the job out of the line and off its owner."""
    _change(
        connection,
        row.job_id,
        status=status.value,
        error=error,
        finished_at=now if status.is_final else None,
        rerun_requested=row.rerun_requested and not status.is_final,
        **_NO_LEASE,
    )


def restart(connection: Connection, job_id: str, now: float, *, runs_again: bool = False) -> None:
    """Put a job that has ended back into the line, as if it had never failed.

    With ``runs_again`` it runs once more after that, for those who asked meanwhile.
    """
    _change(
        connection,
        job_id,
        status=JobStatus.QUEUED.value,
        cancel_requested=False,
        rerun_requested=runs_again,
        error=None,
        finished_at=None,
        crashes=0,
        attempts=0,
        waiting_since=now,
        not_before=now,
        **_NO_LEASE,
    )


def cancel_requested(connection: Connection, lease: Lease) -> bool:
    """Say whether somebody asked for the job to be cancelled. Raises LeaseLost."""
    return bool(held_row(connection, lease).cancel_requested)


def _give_up(connection: Connection, row: AnyRow, now: float) -> None:
    """Decide what becomes of a job whose owner fell silent."""
    if row.cancel_requested:
        end(connection, row, JobStatus.CANCELLED, None, now)
        return
    crashes = row.crashes + 1
    _change(connection, row.job_id, crashes=crashes)
    if crashes >= MAX_CRASHES:
        error = (
            f"The owner of the job fell silent {crashes} times without any progress between, the "
            f"last one being {row.owner!r}; look at the log of that process for why it died, then "
            "retry the job."
        )
        end(connection, row, JobStatus.FAILED, error, now)
        return
    # The first takeover is immediate: most often it was a restart, and nobody should wait.
    delay_seconds = 0.0 if crashes == 1 else min(_MAX_BACKOFF_SECONDS, 2.0 ** (crashes - 2))
    _change(
        connection,
        row.job_id,
        status=JobStatus.QUEUED.value,
        waiting_since=now,
        not_before=now + delay_seconds,
        **_NO_LEASE,
    )


def _change(connection: Connection, job_id: str, **values: Any) -> None:
    connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(**values))


def _expired(now: float) -> tuple[ColumnElement[bool], ...]:
    return jobs.c.status == JobStatus.RUNNING.value, jobs.c.lease_until <= now


def _ready(now: float, lanes: Collection[Lane]) -> tuple[ColumnElement[bool], ...]:
    other = jobs.alias()
    is_lane_busy = (
        select(other.c.job_id)
        .where(
            other.c.index_id == jobs.c.index_id,
            _is_upkeep(other) == _is_upkeep(jobs),
            other.c.status == JobStatus.RUNNING.value,
        )
        .exists()
    )
    return (
        jobs.c.status == JobStatus.QUEUED.value,
        jobs.c.not_before <= now,
        jobs.c.kind.in_([kind.value for kind in JobKind if kind.lane in lanes]),
        ~is_lane_busy,
    )


def _is_upkeep(table: FromClause) -> ColumnElement[bool]:
    return table.c.kind.in_(_UPKEEP_KINDS)


def _level(now: float) -> ColumnElement[int]:
    """Return a job's priority, risen by its waiting but not above the highest.

    A restore goes before all others: what they do meanwhile would be undone.
    """
    risen = jobs.c.priority + case(
        (jobs.c.waiting_since <= now - 2 * AGEING_SECONDS, 2),
        (jobs.c.waiting_since <= now - AGEING_SECONDS, 1),
        else_=0,
    )
    return case(
        (jobs.c.kind == JobKind.RESTORE.value, int(Priority.HIGH) + 1),
        (risen > int(Priority.HIGH), int(Priority.HIGH)),
        else_=risen,
    )
