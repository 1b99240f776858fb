"""How jobs and images are named."""

import re
from datetime import UTC, datetime

from imagedex.core.ids import image_id_of, new_job_id


def test_a_job_id_tells_when_the_job_was_made() -> None:
    job_id = new_job_id(datetime(2025, 11, 14, 12, 34, 56, tzinfo=UTC))
    assert re.fullmatch(r"idx_20251114_123456_[0-9a-f]{4}", job_id)


def test_an_image_id_depends_on_the_path_alone() -> None:
    assert image_id_of("/photos/a.jpg") == image_id_of("/photos/a.jpg")
    assert image_id_of("/photos/a.jpg") != image_id_of("/photos/b.jpg")


def test_an_image_id_is_fit_for_a_url_whatever_the_path() -> None:
    assert re.fullmatch(r"[0-9a-f]{20}", image_id_of("/photos/Ünïcödé ?&#/<b>.jpg"))
