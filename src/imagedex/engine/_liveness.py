"""Which workers have fallen silent, from when each was heard last. No clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping

_PAUSE_SECONDS = 5.0


class Liveness:
    """Tells workers that hang from a listener that was away.

    When the looks themselves come late, as after this machine slept or was stopped, nobody could be
    heard meanwhile: then silence counts from the end of that pause.
    """

    def __init__(self, silent_seconds: float) -> None:
        self._silent_seconds = silent_seconds
        self._looked_at: float | None = None
        self._counted_from = 0.0

    def silent(self, now: float, heard_at: Mapping[str, float]) -> list[str]:
        """Return who was not heard for too long. To be asked each second or so."""
        if self._looked_at is None or now - self._looked_at > _PAUSE_SECONDS:
            self._counted_from = now
        self._looked_at = now
        return [
            worker
            for worker, moment in heard_at.items()
            if now - max(moment, self._counted_from) > self._silent_seconds
        ]
