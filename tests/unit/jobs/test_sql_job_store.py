from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from imagedex.catalog import SqlCatalog
from imagedex.database import Database
from imagedex.jobs import JobStore, SqlJobStore
from imagedex.testing.job_store import (
    JobStoreContract,
    ManualClock,
    make_done,
    make_new_job,
    make_plan,
)


class TestSqlJobStore(JobStoreContract):
    @pytest.fixture
    def job_store(self, database: Database, clock: ManualClock) -> JobStore:
        return SqlJobStore(database, lease_seconds=10, now=clock)


def test_a_request_is_unpacked_only_when_somebody_looks_into_it(
    database: Database, index_ids: tuple[int, int]
) -> None:
    store = SqlJobStore(database)
    request = store.submit(make_new_job(index_ids[0])).request
    with pytest.raises(KeyError):
        request["no such key"]
    assert request == {"image_dir": "/photos"}
    assert list(request) == ["image_dir"]
    assert len(request) == 1
    assert repr(request) == "{'image_dir': '/photos'}"


def test_embedded_chunks_are_found_without_a_look_at_all_past_jobs(
    sqlite_database: Database,
) -> None:
    database = sqlite_database
    index_id = SqlCatalog(database).ensure_index(Path("/index")).index_id
    store = SqlJobStore(database)
    job = store.submit(make_new_job(index_id))
    lease = store.lease_next("a")
    assert lease is not None
    store.save_plan(lease, make_plan("/1"), total_images=1, settled_images=0, failures=())
    with database.transaction() as transaction:
        store.checkpoint_embedded(transaction, lease, make_done(0, indexed=1))
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        assert store.embedded_job_ids(index_id) == [job.job_id]
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    with database.read() as snapshot:
        plans = [
            "; ".join(str(row[3]) for row in snapshot.connection.exec_driver_sql(text, values))
            for text, values in ((f"EXPLAIN QUERY PLAN {one}", given) for one, given in asked)
        ]
    assert "INDEX ix_job_chunks_embedded" in plans[0]
    assert "(job_id=?)" in plans[1]
