"""Pages of jobs and of failures, by keyset: a cursor names the last item that was seen."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from sqlalchemy import Connection, func, select, tuple_

from imagedex.core.errors import InvalidRequest
from imagedex.database.tables import job_failures, job_workers, jobs
from imagedex.jobs._sql.rows import job_of
from imagedex.jobs.interfaces import Page
from imagedex.jobs.records import Job, JobFailure, JobStatus, WorkerShare


def jobs_page(
    connection: Connection, status: JobStatus | None, limit: int, cursor: str | None
) -> Page[Job]:
    """Return jobs, newest first."""
    query = select(jobs)
    total = select(func.count()).select_from(jobs)
    if status is not None:
        query = query.where(jobs.c.status == status.value)
        total = total.where(jobs.c.status == status.value)
    if cursor is not None:
        after = _decoded(cursor, (float, str))
        query = query.where(tuple_(jobs.c.created_at, jobs.c.job_id) < after)
    query = query.order_by(jobs.c.created_at.desc(), jobs.c.job_id.desc())
    rows = connection.execute(query.limit(_checked(limit) + 1)).all()
    shown = rows[:limit]
    return Page(
        items=tuple(job_of(row) for row in shown),
        total=connection.execute(total).scalar_one(),
        next_cursor=(
            _encoded(shown[-1].created_at, shown[-1].job_id) if len(rows) > limit else None
        ),
    )


def worker_shares(connection: Connection, job_id: str) -> list[WorkerShare]:
    """Return what each worker did for a job, in order of their ids."""
    query = select(job_workers).where(job_workers.c.job_id == job_id)
    return [
        WorkerShare(row.worker_id, row.host, row.images_processed, row.seconds)
        for row in connection.execute(query.order_by(job_workers.c.worker_id))
    ]


def failures_page(
    connection: Connection, job_id: str, limit: int, cursor: str | None
) -> Page[JobFailure]:
    """Return failures in order of path."""
    of_job = job_failures.c.job_id == job_id
    query = select(job_failures).where(of_job).order_by(job_failures.c.image_path)
    if cursor is not None:
        (path,) = _decoded(cursor, (str,))
        query = query.where(job_failures.c.image_path > path)
    total = select(func.count()).select_from(job_failures).where(of_job)
    rows = connection.execute(query.limit(_checked(limit) + 1)).all()
    shown = rows[:limit]
    return Page(
        items=tuple(
            JobFailure(row.image_path, row.reason, row.detail, row.attempts) for row in shown
        ),
        total=connection.execute(total).scalar_one(),
        next_cursor=_encoded(shown[-1].image_path) if len(rows) > limit else None,
    )


def _checked(limit: int) -> int:
    if limit < 1:
        raise InvalidRequest(f"The limit {limit} is not a number of items; it must be at least 1.")
    return limit


def _encoded(*position: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(position).encode()).rstrip(b"=").decode()


def _decoded(cursor: str, types: tuple[type, ...]) -> tuple[Any, ...]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        position = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        json.dumps(position, ensure_ascii=False).encode()  # Fails for what no database takes.
    except (ValueError, binascii.Error, RecursionError) as error:
        raise _no_cursor(cursor) from error
    if not isinstance(position, list) or [type(part) for part in position] != list(types):
        raise _no_cursor(cursor)
    return tuple(position)


def _no_cursor(cursor: str) -> InvalidRequest:
    return InvalidRequest(
        f"The cursor {cursor[:80]!r} is not one of this list; use next_cursor of the page before, "
        "or none to begin."
    )
