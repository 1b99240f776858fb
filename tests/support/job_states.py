"""States of a job as the server tells them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from imagedex.client import Failure, JobProgress, JobState

STARTED = datetime(2025, 11, 14, 12, 34, 56, tzinfo=UTC)


def job_state(
    *,
    status: str = "running",
    total: int = 0,
    processed: int = 0,
    failed: int = 0,
    error: str | None = None,
    seconds: float | None = None,
) -> JobState:
    """Return a state; ``seconds`` is how long a job that has ended ran."""
    return JobState(
        job_id="idx_20251114_123456_7f3a",
        kind="full",
        status=status,
        progress=JobProgress(
            total_images=total,
            processed_images=processed,
            failed_images=failed,
            percent_complete=100 * processed / total if total else 0.0,
        ),
        workers=(),
        created_at=STARTED,
        started_at=STARTED,
        finished_at=None if seconds is None else STARTED + timedelta(seconds=seconds),
        estimated_completion=None,
        error=error,
    )


def failure(path: str, reason: str = "empty", detail: str = "It has no bytes.") -> Failure:
    """Return one failure."""
    return Failure(image_path=path, reason=reason, detail=detail, attempts=1)
