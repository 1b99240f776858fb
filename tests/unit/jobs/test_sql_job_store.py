from __future__ import annotations

import pytest

from imagedex.database import Database
from imagedex.jobs import JobStore, SqlJobStore
from imagedex.testing.job_store import JobStoreContract, ManualClock, make_new_job


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
