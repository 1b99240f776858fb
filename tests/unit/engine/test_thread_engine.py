"""The engine without processes passes the suite of all engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from imagedex.engine import Engine
from imagedex.testing.engine import EngineLifeSuite, EngineSuite
from imagedex.testing.thread_engine import ThreadEngine


class TestThreadEngine(EngineSuite):
    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        engine = ThreadEngine(workers=2)
        engine.start()
        yield engine
        engine.close()


class TestThreadEngineLife(EngineLifeSuite):
    @pytest.fixture
    def stopped(self) -> Iterator[Engine]:
        engine = ThreadEngine(workers=2)
        yield engine
        engine.close()
