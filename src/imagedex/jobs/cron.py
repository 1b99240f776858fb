"""When something is to be done again and again, in the words of cron."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import CroniterError, croniter

from imagedex.core.errors import SettingsError

_FIELDS = 5


class CronTimes:
    """Moments such as ``0 3 * * 0``, each Sunday at three o'clock, in a time zone. Immutable.

    Minute, hour, day of the month, month and day of the week, as crontab(5) has them; also
    ``@daily`` and the like.
    """

    def __init__(self, expression: str, time_zone: str = "UTC") -> None:
        """Take the words. Raises SettingsError for what is none, and for an unknown time zone."""
        try:
            # It needs no data base of time zones, which not every system has.
            self._zone: tzinfo = UTC if time_zone == "UTC" else ZoneInfo(time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise SettingsError(
                f"The time zone {time_zone!r} is not known; name one such as UTC or Europe/Berlin."
            ) from error
        is_word = expression.startswith("@")
        if not is_word and len(expression.split()) != _FIELDS:
            raise _not_cron(expression)
        self._expression = expression
        self._time_zone = time_zone
        try:
            self.next_after(0.0)
        except (CroniterError, ValueError, KeyError, AttributeError) as error:
            raise _not_cron(expression) from error

    def __str__(self) -> str:
        """Return what the moments follow from."""
        return f"{self._expression} {self._time_zone}"

    def next_after(self, seconds: float) -> float:
        """Return the first moment after another one, both in seconds since the epoch."""
        start = datetime.fromtimestamp(seconds, self._zone)
        following: datetime = croniter(self._expression, start).get_next(datetime)
        return following.timestamp()


def _not_cron(expression: str) -> SettingsError:
    return SettingsError(
        f"{expression!r} is no schedule; write five fields as for cron, such as '0 3 * * 0' for "
        "Sundays at three o'clock, or nothing for never."
    )
