"""Points in time: always UTC, always with their zone."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present time, in UTC."""
    return datetime.now(UTC)


def iso_z(moment: datetime) -> str:
    """Return ISO 8601 with a ``Z`` and milliseconds: ``2025-11-14T12:34:56.789Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def at_most_every(seconds: float, act: Callable[[], object]) -> Callable[[], None]:
    """Return a function that acts when it is called, unless it has within so many seconds."""
    last = float("-inf")

    def act_seldom() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= seconds:
            last = now
            act()

    return act_seldom
