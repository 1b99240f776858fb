"""A job's chunks, and the counts of images that follow from them.

Held true by every function here: ``processed_images`` is what needed no worker, plus the images
of chunks that are done, less the failed ones that are being retried; ``failed_images`` is
the number of failures that are not being retried.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from imagedex.core.errors import Conflict, NotFound
from imagedex.core.images import FailureReason, ImageFailure
from imagedex.database.tables import job_chunks, job_failures, job_workers, jobs
from imagedex.jobs._sql import findings
from imagedex.jobs._sql.rows import PARAMETERS, AnyRow, batches, packed, unpacked
from imagedex.jobs.records import Chunk, ChunkAction, ChunkDone, ChunkState, PlannedChunk

_BATCH = 500  # Chunks that are held in memory at once, however long a plan is.
_DEFAULT_CHUNK_IMAGES = 64  # For a job whose plan had no chunk to take the size from.


def save_plan(
    connection: Connection,
    job: AnyRow,
    chunks: Iterable[PlannedChunk],
    *,
    total_images: int,
    settled_images: int,
    failures: Sequence[ImageFailure],
) -> None:
    """Replace the job's plan."""
    of_job = job_chunks.c.job_id == job.job_id
    connection.execute(delete(job_chunks).where(of_job))
    # What failed before the plan was made is to be found out again, with its attempts kept.
    connection.execute(
        update(job_failures).where(job_failures.c.job_id == job.job_id).values(is_retrying=True)
    )
    number = _insert_chunks(connection, job.job_id, job.next_chunk, chunks)
    failed = _record_failures(connection, job.job_id, None, failures)
    connection.execute(
        delete(job_failures).where(
            job_failures.c.job_id == job.job_id, job_failures.c.is_retrying.is_(True)
        )
    )
    _change_job(
        connection,
        job.job_id,
        is_planned=True,
        next_chunk=number,
        crashes=0,
        attempts=0,
        total_images=total_images,
        processed_images=settled_images,
        failed_images=failed,
    )


def add(connection: Connection, job: AnyRow, chunks: Iterable[PlannedChunk]) -> None:
    """Add chunks to the job's plan whose images it does not count."""
    number = _insert_chunks(connection, job.job_id, job.next_chunk, chunks)
    _change_job(connection, job.job_id, next_chunk=number)


def extend(connection: Connection, job: AnyRow, chunks: Iterable[PlannedChunk]) -> None:
    """Add chunks to the job's plan whose images it counts as well."""
    more = list(chunks)
    number = _insert_chunks(connection, job.job_id, job.next_chunk, more)
    images = sum(len(chunk.image_paths) for chunk in more)
    _change_job(
        connection, job.job_id, next_chunk=number, total_images=jobs.c.total_images + images
    )


def split(connection: Connection, job: AnyRow, number: int, sizes: Sequence[int]) -> list[Chunk]:
    """Put several chunks in the place of a planned one, of so many images each, in order."""
    of_chunk = (job_chunks.c.job_id == job.job_id, job_chunks.c.number == number)
    chunk = connection.execute(select(job_chunks).where(*of_chunk)).one_or_none()
    if chunk is None:
        raise NotFound(f"Job {job.job_id!r} has no chunk {number}.")
    if chunk.state != ChunkState.PLANNED.value:
        raise Conflict(
            f"Chunk {number} of job {job.job_id!r} is {chunk.state}; only a planned one is split."
        )
    paths = tuple(unpacked(chunk.image_paths))
    if any(size < 1 for size in sizes) or sum(sizes) != len(paths):
        raise ValueError(f"{len(paths)} images cannot be split into pieces of {list(sizes)}.")
    ends = list(accumulate(sizes, initial=0))
    pieces = [
        PlannedChunk(ChunkAction(chunk.action), paths[start:end]) for start, end in pairwise(ends)
    ]
    connection.execute(delete(job_chunks).where(*of_chunk))
    next_chunk = _insert_chunks(connection, job.job_id, job.next_chunk, pieces)
    _change_job(connection, job.job_id, next_chunk=next_chunk)
    _move_failures(connection, job, number, pieces)
    return [
        Chunk(job.next_chunk + offset, piece.action, ChunkState.PLANNED, piece.image_paths, None)
        for offset, piece in enumerate(pieces)
    ]


def _move_failures(
    connection: Connection, job: AnyRow, number: int, pieces: Sequence[PlannedChunk]
) -> None:
    """Have those that a chunk was to try again be tried by the pieces that came of it."""
    of_chunk = (job_failures.c.job_id == job.job_id, job_failures.c.chunk == number)
    retried = set(connection.execute(select(job_failures.c.image_path).where(*of_chunk)).scalars())
    moves = [
        {"path": path, "piece": job.next_chunk + offset}
        for offset, piece in enumerate(pieces)
        for path in piece.image_paths
        if path in retried
    ]
    if moves:
        connection.execute(
            update(job_failures)
            .where(
                job_failures.c.job_id == job.job_id, job_failures.c.image_path == bindparam("path")
            )
            .values(chunk=bindparam("piece")),
            moves,
        )


def forget(connection: Connection, job_id: str) -> None:
    """Make the job one without a plan again; the numbers of its chunks stay used.

    What failed is forgotten too, since a new plan finds it again, and what each worker did stays.
    """
    connection.execute(delete(job_chunks).where(job_chunks.c.job_id == job_id))
    connection.execute(delete(job_failures).where(job_failures.c.job_id == job_id))
    findings.forget(connection, job_id)
    _change_job(
        connection,
        job_id,
        is_planned=False,
        total_images=0,
        processed_images=0,
        failed_images=0,
        progressed_at=None,  # The rate of the index is that of a job which has chunks.
    )


def in_state(connection: Connection, job_id: str, state: ChunkState) -> list[Chunk]:
    """Return the chunks in that state, by number."""
    rows = connection.execute(
        select(job_chunks)
        .where(job_chunks.c.job_id == job_id, job_chunks.c.state == state.value)
        .order_by(job_chunks.c.number)
    )
    return [
        Chunk(
            number=row.number,
            action=ChunkAction(row.action),
            state=ChunkState(row.state),
            image_paths=() if row.image_paths is None else tuple(unpacked(row.image_paths)),
            part=row.part,
        )
        for row in rows
    ]


def record_embedded(
    connection: Connection, job_id: str, done: ChunkDone, *, lease_until: float, now: float
) -> None:
    """Record what a worker made of a planned chunk; a chunk that is not planned stays."""
    of_chunk = (job_chunks.c.job_id == job_id, job_chunks.c.number == done.number)
    chunk = connection.execute(
        select(job_chunks.c.state, job_chunks.c.images).where(*of_chunk)
    ).one_or_none()
    if chunk is None:
        raise NotFound(f"Job {job_id!r} has no chunk {done.number}.")
    if chunk.state != ChunkState.PLANNED.value:
        return
    connection.execute(
        update(job_chunks)
        .where(*of_chunk)
        .values(
            state=ChunkState.EMBEDDED.value,
            part=done.part,
            worker_id=done.worker_id,
            seconds=done.seconds,
            done_at=now,
        )
    )
    failed = _record_failures(connection, job_id, done.number, done.failures)
    _forget_retried(connection, job_id, [done.number])
    _credit_worker(connection, job_id, done, chunk.images)
    _change_job(
        connection,
        job_id,
        processed_images=jobs.c.processed_images + chunk.images,
        failed_images=jobs.c.failed_images + failed,
        crashes=0,
        attempts=0,
        progressed_at=now,
        lease_until=lease_until,
    )


def record_committed(connection: Connection, job_id: str, numbers: Sequence[int]) -> None:
    """Record that chunks are published, and forget their paths."""
    for some in batches(numbers, PARAMETERS):
        pending = (
            job_chunks.c.job_id == job_id,
            job_chunks.c.number.in_(some),
            job_chunks.c.state != ChunkState.COMMITTED.value,
        )
        uncounted = connection.execute(
            select(func.coalesce(func.sum(job_chunks.c.images), 0)).where(
                *pending, job_chunks.c.state == ChunkState.PLANNED.value
            )
        ).scalar_one()
        changed = connection.execute(
            update(job_chunks)
            .where(*pending)
            .values(state=ChunkState.COMMITTED.value, image_paths=None)
        )
        if changed.rowcount:
            _forget_retried(connection, job_id, some)
            _change_job(
                connection,
                job_id,
                processed_images=jobs.c.processed_images + uncounted,
                crashes=0,
                attempts=0,
            )


def replan(connection: Connection, job_id: str, numbers: Sequence[int]) -> None:
    """Put embedded chunks back to planned."""
    for some in batches(numbers, PARAMETERS):
        lost = (
            job_chunks.c.job_id == job_id,
            job_chunks.c.number.in_(some),
            job_chunks.c.state == ChunkState.EMBEDDED.value,
            job_chunks.c.action == ChunkAction.EMBED.value,
        )
        rows = connection.execute(select(job_chunks.c.number, job_chunks.c.images).where(*lost))
        images_by_number = {row.number: row.images for row in rows}
        connection.execute(
            update(job_chunks)
            .where(*lost)
            .values(
                state=ChunkState.PLANNED.value,
                part=None,
                worker_id=None,
                seconds=None,
                done_at=None,
            )
        )
        retrying = connection.execute(
            update(job_failures)
            .where(
                job_failures.c.job_id == job_id,
                job_failures.c.chunk.in_(images_by_number),
                job_failures.c.is_retrying.is_(False),
            )
            .values(is_retrying=True)
        )
        _change_job(
            connection,
            job_id,
            processed_images=jobs.c.processed_images - sum(images_by_number.values()),
            failed_images=jobs.c.failed_images - retrying.rowcount,
        )


def plan_retry(
    connection: Connection,
    job: AnyRow,
    *,
    reasons: Collection[FailureReason] = tuple(FailureReason),
    below_attempts: int | None = None,
) -> int:
    """Make new chunks of images that failed, as large as those of the plan; return how many."""
    of_job = job_failures.c.job_id == job.job_id
    query = select(job_failures.c.image_path).where(
        of_job,
        job_failures.c.is_retrying.is_(False),
        job_failures.c.reason.in_([reason.value for reason in reasons]),
    )
    if below_attempts is not None:
        query = query.where(job_failures.c.attempts < below_attempts)
    paths = connection.execute(query.order_by(job_failures.c.image_path)).scalars().all()
    size = connection.execute(
        select(func.max(job_chunks.c.images)).where(
            job_chunks.c.job_id == job.job_id, job_chunks.c.action == ChunkAction.EMBED.value
        )
    ).scalar_one()
    groups = list(batches(paths, size or _DEFAULT_CHUNK_IMAGES))
    if not groups:
        return 0
    number = _insert_chunks(
        connection,
        job.job_id,
        job.next_chunk,
        [PlannedChunk(ChunkAction.EMBED, tuple(group)) for group in groups],
    )
    connection.execute(
        update(job_failures)
        .where(of_job, job_failures.c.image_path == bindparam("path"))
        .values(chunk=bindparam("retried_in"), is_retrying=True),
        [
            {"path": path, "retried_in": job.next_chunk + offset}
            for offset, group in enumerate(groups)
            for path in group
        ],
    )
    _change_job(
        connection,
        job.job_id,
        next_chunk=number,
        processed_images=jobs.c.processed_images - len(paths),
        failed_images=jobs.c.failed_images - len(paths),
    )
    return len(paths)


def _insert_chunks(
    connection: Connection, job_id: str, first: int, chunks: Iterable[PlannedChunk]
) -> int:
    """Number the chunks from ``first``, and return the number after the last."""
    number = first
    for some in batches(chunks, _BATCH):
        connection.execute(
            insert(job_chunks),
            [_chunk_values(job_id, number + offset, chunk) for offset, chunk in enumerate(some)],
        )
        number += len(some)
    return number


def _chunk_values(job_id: str, number: int, chunk: PlannedChunk) -> dict[str, Any]:
    is_removal = chunk.action is ChunkAction.REMOVE
    return {
        "job_id": job_id,
        "number": number,
        "action": chunk.action.value,
        "state": (ChunkState.EMBEDDED if is_removal else ChunkState.PLANNED).value,
        "images": len(chunk.image_paths),
        "image_paths": packed(chunk.image_paths),
    }


def _record_failures(
    connection: Connection, job_id: str, chunk: int | None, failures: Sequence[ImageFailure]
) -> int:
    """Store failures and return by how many more images count as failed."""
    by_path = {failure.image_path: failure for failure in failures}
    known = _known_failures(connection, job_id, list(by_path))
    new, again = [], []
    for path, failure in by_path.items():
        values = {
            "chunk": chunk,
            "reason": failure.reason.value,
            "detail": failure.detail,
            "is_retrying": False,
        }
        if path in known:
            again.append({"path": path, "attempts": known[path].attempts + 1, **values})
        else:
            new.append({"job_id": job_id, "image_path": path, "attempts": 1, **values})
    if new:
        connection.execute(insert(job_failures), new)
    if again:
        columns: dict[str, Any] = {name: bindparam(name) for name in again[0] if name != "path"}
        connection.execute(
            update(job_failures)
            .where(job_failures.c.job_id == job_id, job_failures.c.image_path == bindparam("path"))
            .values(columns),
            again,
        )
    return len(new) + sum(bool(row.is_retrying) for row in known.values())


def _known_failures(connection: Connection, job_id: str, paths: Sequence[str]) -> dict[str, AnyRow]:
    return {
        row.image_path: row
        for some in batches(paths, PARAMETERS)
        for row in connection.execute(
            select(
                job_failures.c.image_path, job_failures.c.attempts, job_failures.c.is_retrying
            ).where(job_failures.c.job_id == job_id, job_failures.c.image_path.in_(some))
        )
    }


def _forget_retried(connection: Connection, job_id: str, numbers: Sequence[int]) -> None:
    """Delete the failures that these chunks were to try again and that did not fail again."""
    connection.execute(
        delete(job_failures).where(
            job_failures.c.job_id == job_id,
            job_failures.c.chunk.in_(numbers),
            job_failures.c.is_retrying.is_(True),
        )
    )


def _credit_worker(connection: Connection, job_id: str, done: ChunkDone, images: int) -> None:
    of_worker: tuple[ColumnElement[bool], ...] = (
        job_workers.c.job_id == job_id,
        job_workers.c.worker_id == done.worker_id,
    )
    known = connection.execute(
        update(job_workers)
        .where(*of_worker)
        .values(
            host=done.host,
            images_processed=job_workers.c.images_processed + images,
            seconds=job_workers.c.seconds + done.seconds,
        )
    )
    if known.rowcount == 0:
        connection.execute(
            insert(job_workers).values(
                job_id=job_id,
                worker_id=done.worker_id,
                host=done.host,
                images_processed=images,
                seconds=done.seconds,
            )
        )


def _change_job(connection: Connection, job_id: str, **values: Any) -> None:
    connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(**values))
