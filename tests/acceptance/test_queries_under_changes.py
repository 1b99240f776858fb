"""Queries never stop, and never see half of anything."""

from pathlib import Path

import pytest

from support.mixed_load import query_under_changes
from support.pictures import draw_pictures
from support.server import ServerProcess


@pytest.mark.timeout(300)
def test_no_query_fails_or_is_wrong_while_images_come_and_go_and_rebuilds_run(
    tmp_path: Path,
) -> None:
    pictures = draw_pictures(tmp_path / "photos", 32)
    # No size of a segment is special to this; the settle time only makes removals slower.
    environment = {"IMAGEDEX_INDEXING__SETTLE_SECONDS": "0"}
    with ServerProcess(tmp_path / "home", [tmp_path / "photos"], environment) as server:
        report = query_under_changes(server, pictures[:20], pictures[20:])
        with server.client() as client:
            stats = client.get("/api/v1/index/stats").json()
    assert report.failed == []
    assert report.wrong == []
    assert report.rebuilds >= 2
    assert report.states_seen >= 10
    assert stats["num_images"] == 20
    assert len(report.busy_seconds) > len(report.idle_seconds)
