"""Times in the words of cron."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from imagedex.core.errors import SettingsError
from imagedex.jobs import CronTimes


def _next(expression: str, zone: str, moment: str) -> str:
    seconds = CronTimes(expression, zone).next_after(datetime.fromisoformat(moment).timestamp())
    return datetime.fromtimestamp(seconds, UTC).isoformat()


@pytest.mark.parametrize(
    ("expression", "zone", "moment", "expected"),
    [
        ("0 3 * * 0", "UTC", "2026-11-22T02:59:59+00:00", "2026-11-22T03:00:00+00:00"),
        ("0 3 * * 0", "UTC", "2026-11-22T03:00:00+00:00", "2026-11-29T03:00:00+00:00"),
        ("*/15 * * * *", "UTC", "2026-11-22T03:01:00+00:00", "2026-11-22T03:15:00+00:00"),
        ("30 2 1 * *", "UTC", "2026-11-22T03:00:00+00:00", "2026-12-01T02:30:00+00:00"),
        ("@daily", "UTC", "2026-11-22T03:00:00+00:00", "2026-11-23T00:00:00+00:00"),
        ("0 3 * * *", "Europe/Berlin", "2026-01-10T12:00:00+00:00", "2026-01-11T02:00:00+00:00"),
        ("0 3 * * *", "Europe/Berlin", "2026-07-10T12:00:00+00:00", "2026-07-11T01:00:00+00:00"),
    ],
)
def test_the_next_time_is_that_of_cron(
    expression: str, zone: str, moment: str, expected: str
) -> None:
    assert _next(expression, zone, moment) == expected


@pytest.mark.parametrize(
    "expression",
    ["", "daily", "@sometimes", "0 3 * *", "61 * * * *", "0 3 * * 0 5", "0 0 31 2 *", "a b c d e"],
)
def test_what_is_no_schedule_is_refused(expression: str) -> None:
    with pytest.raises(SettingsError, match=r"is no schedule; write five fields"):
        CronTimes(expression)


@pytest.mark.parametrize("zone", ["", "Nowhere/Atall", "../etc/passwd", "\0"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(SettingsError, match=r"time zone .* is not known"):
        CronTimes("0 3 * * 0", zone)


def test_times_are_told_apart_by_their_words_and_their_zone() -> None:
    assert str(CronTimes("0 3 * * 0", "Europe/Berlin")) == "0 3 * * 0 Europe/Berlin"
