"""How a request becomes a job, once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from imagedex.core.errors import InvalidRequest, NotFound, Unavailable
from imagedex.core.ids import new_job_id
from imagedex.database.tables import idempotency_keys, indexes, jobs
from imagedex.jobs._sql.rows import ACTIVE, AnyRow, job_row, moment, packed
from imagedex.jobs.interfaces import IdempotencyKey, NewJob
from imagedex.jobs.records import JobStatus

_KEPT_SECONDS = 24 * 60 * 60.0
_DRAWS = 100  # Of the 65,536 ids of a second; never reached below thousands of jobs a second.


def submit(
    connection: Connection, new: NewJob, idempotency: IdempotencyKey | None, now: float
) -> tuple[AnyRow, bool]:
    """Return the job's row, and whether it was made now."""
    connection.execute(
        delete(idempotency_keys).where(idempotency_keys.c.created_at <= now - _KEPT_SECONDS)
    )
    if idempotency is not None:
        job_id = _job_of_key(connection, idempotency)
        if job_id is not None:
            return job_row(connection, job_id), False
    row, is_new = _insert(connection, new, now)
    if idempotency is not None:
        connection.execute(
            insert(idempotency_keys).values(
                client=idempotency.client,
                key=idempotency.key,
                request_hash=idempotency.request_hash,
                job_id=row.job_id,
                created_at=now,
            )
        )
    return row, is_new


def active_twin(connection: Connection, index_id: int, dedupe_key: str) -> AnyRow | None:
    """Return the active job of the same request."""
    return connection.execute(
        select(jobs).where(
            jobs.c.index_id == index_id,
            jobs.c.dedupe_key == dedupe_key,
            jobs.c.status.in_(ACTIVE),
        )
    ).one_or_none()


def _job_of_key(connection: Connection, idempotency: IdempotencyKey) -> str | None:
    row = connection.execute(
        select(idempotency_keys.c.request_hash, idempotency_keys.c.job_id).where(
            idempotency_keys.c.client == idempotency.client,
            idempotency_keys.c.key == idempotency.key,
        )
    ).one_or_none()
    if row is None:
        return None
    if row.request_hash != idempotency.request_hash:
        raise InvalidRequest(
            f"The idempotency key {idempotency.key!r} was used for another request, which made "
            f"job {row.job_id!r}; use a new key for a new request."
        )
    return str(row.job_id)


def _insert(connection: Connection, new: NewJob, now: float) -> tuple[AnyRow, bool]:
    """Insert first and look afterwards: then the unique indexes decide every race."""
    values: dict[str, Any] = {
        "index_id": new.index_id,
        "kind": new.kind.value,
        "status": JobStatus.QUEUED.value,
        "priority": int(new.priority),
        "dedupe_key": new.dedupe_key,
        "request": packed(dict(new.request)),
        "total_images": new.images_count,
        "created_at": now,
        "waiting_since": now,
        "not_before": now,
    }
    for _ in range(_DRAWS):
        job_id = new_job_id(moment(now))
        try:
            with connection.begin_nested():
                connection.execute(insert(jobs).values(job_id=job_id, **values))
        except IntegrityError as error:
            twin = active_twin(connection, new.index_id, new.dedupe_key)
            if twin is not None:
                if new.runs_again:
                    _ask_again(connection, twin)
                return twin, False
            if not _index_exists(connection, new.index_id):
                raise NotFound(f"There is no index with the number {new.index_id}.") from error
            continue  # The id is taken; draw again.
        return job_row(connection, job_id), True
    raise Unavailable("All job ids of this second that were drawn are taken; try again.")


def _ask_again(connection: Connection, twin: AnyRow) -> None:
    """Let the active job run once more when it may have read already what has changed since.

    One that waits and has no plan reads everything after this.
    """
    if twin.status == JobStatus.RUNNING.value or twin.is_planned:
        connection.execute(
            update(jobs).where(jobs.c.job_id == twin.job_id).values(rerun_requested=True)
        )


def _index_exists(connection: Connection, index_id: int) -> bool:
    query = select(indexes.c.index_id).where(indexes.c.index_id == index_id)
    return connection.execute(query).first() is not None
