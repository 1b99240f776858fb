"""What the scan of a job found."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, delete, insert, select

from imagedex.database.tables import job_findings
from imagedex.jobs.records import ScanFindings


def stored(connection: Connection, job_id: str) -> ScanFindings | None:
    """Return what is stored for a job."""
    query = select(job_findings).where(job_findings.c.job_id == job_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    return ScanFindings(**{name: value for name, value in row.items() if name != "job_id"})


def store(connection: Connection, job_id: str, found: ScanFindings) -> None:
    """Put it in place of what is stored."""
    forget(connection, job_id)
    connection.execute(insert(job_findings).values(job_id=job_id, **asdict(found)))


def forget(connection: Connection, job_id: str) -> None:
    """Delete what is stored for a job."""
    connection.execute(delete(job_findings).where(job_findings.c.job_id == job_id))
