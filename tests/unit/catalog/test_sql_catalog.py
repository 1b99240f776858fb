from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagedex.catalog import Catalog, CatalogCounts, SqlCatalog
from imagedex.core.images import RowLocation
from imagedex.database import Database
from imagedex.testing.catalog import CatalogContract, make_facts, make_failure


@pytest.fixture(scope="module")
def shared_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """For examples of one test, which use an index each."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('shared') / 'imagedex.db'}")
    database.upgrade()
    yield database
    database.close()


class TestSqlCatalog(CatalogContract):
    @pytest.fixture
    def catalog(self, database: Database) -> Catalog:
        return SqlCatalog(database)

    @pytest.fixture
    def other_catalog(self, database: Database) -> Catalog:
        return SqlCatalog(database)


def test_the_moment_of_a_generation_is_that_of_the_clock(database: Database) -> None:
    catalog = SqlCatalog(database, now=lambda: 1_763_123_696.5)
    index_id = catalog.ensure_index(Path("/index")).index_id
    with database.transaction() as transaction:
        catalog.record_generation(transaction, index_id, generation=1, indexed=())
    (index,) = catalog.list_indexes()
    assert index.updated_at is not None
    assert index.updated_at.isoformat() == "2025-11-14T12:34:56.500000+00:00"


_PATHS = st.lists(st.sampled_from("abcdef"), max_size=4)
_STEPS = st.lists(st.tuples(st.sampled_from(["publish", "fail", "bury"]), _PATHS, _PATHS))


@settings(max_examples=15)
@given(steps=_STEPS)
def test_the_kept_totals_are_those_that_a_count_finds(
    steps: list[tuple[str, list[str], list[str]]], shared_database: Database
) -> None:
    catalog = SqlCatalog(shared_database)
    index_id = catalog.ensure_index(Path(f"/index/{uuid4()}")).index_id
    located: dict[str, RowLocation | None] = {}
    failed: set[str] = set()
    for generation, (step, paths, removed) in enumerate(steps, start=1):
        with shared_database.transaction() as transaction:
            if step == "publish":
                rows = [(RowLocation(generation, row), path) for row, path in enumerate(paths)]
                catalog.forget_images(transaction, index_id, removed)
                catalog.record_generation(
                    transaction,
                    index_id,
                    generation=generation,
                    indexed=[(location, make_facts(path)) for location, path in rows],
                )
                for path in removed:
                    located.pop(path, None)
                    failed.discard(path)
                for row, path in rows:
                    located[path] = row
                    failed.discard(path)
            elif step == "fail":
                catalog.record_failures(transaction, index_id, [make_failure(p) for p in paths])
                for path in paths:
                    located.setdefault(path, None)
                    failed.add(path)
            else:
                buried = [location for path in paths if (location := located.get(path))]
                catalog.record_tombstones(transaction, index_id, buried)
                for path in [path for path, location in located.items() if location in buried]:
                    del located[path]
                    failed.discard(path)
    found = catalog.lookup(index_id, list("abcdef"))
    assert {path: entry.location for path, entry in found.items()} == located
    findable = sum(location is not None for location in located.values())
    assert catalog.counts(index_id) == CatalogCounts(indexed=findable, failed=len(failed))
