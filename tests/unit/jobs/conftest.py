from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.catalog import SqlCatalog
from imagedex.database import Database


@pytest.fixture
def index_ids(database: Database) -> tuple[int, int]:
    catalog = SqlCatalog(database)
    first, second = (catalog.ensure_index(Path(f"/indexes/{name}")) for name in ("one", "two"))
    return first.index_id, second.index_id
