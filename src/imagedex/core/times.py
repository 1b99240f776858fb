"""Points in time: always UTC, always with their zone."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present time, in UTC."""
    return datetime.now(UTC)


def iso_z(moment: datetime) -> str:
    """Return ISO 8601 with a ``Z`` and milliseconds: ``2025-11-14T12:34:56.789Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
