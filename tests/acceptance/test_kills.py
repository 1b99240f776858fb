"""A server that is killed while it indexes loses nothing and doubles nothing."""

from pathlib import Path

import pytest

from support.kills import index_under_kills
from support.pictures import draw_pictures
from support.server import ServerProcess


@pytest.mark.timeout(300)
def test_every_image_is_found_exactly_once_after_kills_at_random_moments(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    images = {str(path) for path in draw_pictures(photos, 200)}
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    server = ServerProcess(tmp_path / "home", [photos], {"IMAGEDEX_INDEXING__CHUNK_IMAGES": "16"})
    try:
        report = index_under_kills(server, photos, images, kills=4, seed=3)
    finally:
        server.stop()
    assert report.faults == []
    assert report.kills == 4
    assert report.jobs_completed >= 1
