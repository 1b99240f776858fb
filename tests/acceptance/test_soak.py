"""The short form of ``make soak``."""

from pathlib import Path

import pytest

from soak.trial import Trial


@pytest.mark.timeout(300)
def test_kills_while_files_and_index_change_at_random_lose_and_double_nothing(
    tmp_path: Path,
) -> None:
    report = Trial(tmp_path, seed=4, files=24).run(kills=6)
    assert report.faults == []
    assert report.kills >= 6
