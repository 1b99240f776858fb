"""Between rows and records."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Row, select

from imagedex.core.errors import LeaseLost, NotFound
from imagedex.database.tables import jobs
from imagedex.jobs.records import Job, JobKind, JobStatus, Lease, Priority

ACTIVE = tuple(status.value for status in JobStatus if not status.is_final)
PARAMETERS = 900  # SQLite before 3.32 takes at most 999 parameters in a statement.

_WITHOUT_REQUEST = [column for column in jobs.c if column is not jobs.c.request]

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
ItemT = TypeVar("ItemT")


class StoredRequest(Mapping[str, Any]):
    """A request as it is stored, unpacked when somebody looks into it.

    A notification may name thousands of images; whoever only asks how its job fares does not
    pay for them.
    """

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._unpacked: dict[str, Any] | None = None

    def __getitem__(self, key: str) -> Any:
        return self._request()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._request())

    def __len__(self) -> int:
        return len(self._request())

    def __repr__(self) -> str:
        return repr(self._request())

    def _request(self) -> dict[str, Any]:
        if self._unpacked is None:
            self._unpacked = unpacked(self._packed)
        return self._unpacked


def packed(value: Any) -> bytes:
    """Return compact bytes of what JSON can hold."""
    # Level 1 is thrice as fast as the default and packs paths, which resemble each other, well.
    return zlib.compress(json.dumps(value, separators=(",", ":")).encode(), level=1)


def unpacked(value: bytes) -> Any:
    """Return what was packed."""
    return json.loads(zlib.decompress(value))


def job_of(row: AnyRow) -> Job:
    """Return the job in a row with all columns of its table."""
    return Job(
        job_id=row.job_id,
        index_id=row.index_id,
        kind=JobKind(row.kind),
        status=JobStatus(row.status),
        priority=Priority(row.priority),
        request=StoredRequest(row.request),
        created_at=moment(row.created_at),
        started_at=None if row.started_at is None else moment(row.started_at),
        finished_at=None if row.finished_at is None else moment(row.finished_at),
        error=row.error,
        cancel_requested=row.cancel_requested,
        is_planned=row.is_planned,
        total_images=row.total_images,
        processed_images=row.processed_images,
        failed_images=row.failed_images,
    )


def moment(seconds: float) -> datetime:
    """Return the point in time that is so many seconds after the epoch."""
    return datetime.fromtimestamp(seconds, UTC)


def job_row(connection: Connection, job_id: str) -> AnyRow:
    """Return the job's row, which a write transaction keeps as it is. Raises NotFound."""
    row = connection.execute(select(jobs).where(jobs.c.job_id == job_id)).one_or_none()
    if row is None:
        raise NotFound(f"There is no job {job_id!r}; see the list of jobs for those that are.")
    return row


def held_row(connection: Connection, lease: Lease) -> AnyRow:
    """Return the row of the lease's job, which a write transaction keeps held. Raises LeaseLost.

    It has all columns but the request, since a running job comes here at each chunk.
    An expired lease that nobody has taken over is still held: no other owner can have written.
    """
    row = connection.execute(
        select(*_WITHOUT_REQUEST).where(
            jobs.c.job_id == lease.job.job_id,
            jobs.c.status == JobStatus.RUNNING.value,
            jobs.c.owner == lease.owner,
            jobs.c.fence == lease.fence,
        )
    ).one_or_none()
    if row is None:
        raise LeaseLost(
            f"{lease.owner!r} no longer holds job {lease.job.job_id!r} (fence {lease.fence}): it "
            "ended or has passed to another owner; nothing was written."
        )
    return row


def batches(items: Iterable[ItemT], size: int) -> Iterator[Sequence[ItemT]]:
    """Yield the items in lists of at most ``size``."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
