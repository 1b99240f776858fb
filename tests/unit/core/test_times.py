"""Points in time on the wire."""

from datetime import UTC, datetime, timedelta, timezone

from imagedex.core.times import iso_z, utc_now


def test_times_are_written_in_utc_with_a_z() -> None:
    moment = datetime(2025, 11, 14, 13, 34, 56, 789_000, tzinfo=timezone(timedelta(hours=1)))
    assert iso_z(moment) == "2025-11-14T12:34:56.789Z"


def test_the_present_has_a_zone() -> None:
    assert utc_now().tzinfo is UTC
