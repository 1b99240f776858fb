"""One engine with real worker processes for each module of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imagedex.engine import DaskEngine
from imagedex.testing.engine import wait_until


@pytest.fixture(scope="module")
def dask_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskEngine]:
    """Give a started engine with two workers, both connected."""
    engine = DaskEngine(workers=2, log_dir=tmp_path_factory.mktemp("logs"))
    engine.start()
    wait_until(lambda: len(engine.workers()) == 2, "both workers")
    yield engine
    engine.close()
