"""Every cursor that the server gives out is one that it takes back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from imagedex.access import Scope
from imagedex.api import create_api
from imagedex.catalog import SqlCatalog
from imagedex.core.images import FailureReason, ImageFailure
from imagedex.database import Database
from imagedex.jobs import SqlJobStore
from imagedex.testing.application import InMemoryApplication
from imagedex.testing.job_store import make_new_job
from support.api import ApiClient, plain_log
from support.empty_database import database_in


@pytest.fixture(autouse=True)
def _plain_log() -> Iterator[None]:
    with plain_log():
        yield


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = database_in(tmp_path / "imagedex.db")
    yield database
    database.close()


@pytest.mark.parametrize(
    "component",
    ["x" * 255, "\N{LATIN SMALL LETTER O WITH DIAERESIS}" * 127, "\N{DOG FACE}" * 63, "\a" * 255],
    ids=["ASCII", "two bytes each", "four bytes each", "control characters"],
)
def test_failures_with_the_longest_paths_are_listed_page_by_page(
    portal: BlockingPortal,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    component: str,
) -> None:
    paths = sorted(f"/{number}" + f"/{component}" * 15 for number in range(3))
    jobs = SqlJobStore(database, lease_seconds=10)
    index = SqlCatalog(database).ensure_index(tmp_path / "index")
    job = jobs.submit(make_new_job(index.index_id))
    lease = jobs.lease_next("a")
    assert lease is not None
    failures = [ImageFailure(path, FailureReason.DAMAGED, "It broke.") for path in paths]
    jobs.save_plan(lease, [], total_images=3, settled_images=3, failures=failures)
    application = InMemoryApplication(tmp_path / "home")
    monkeypatch.setattr(application.indexing, "failures", jobs.failures)
    client = ApiClient(portal, create_api(application))
    key = application.key_with(Scope.INDEX)
    call = partial(client.call, "GET", f"/api/v1/index/jobs/{job.job_id}/failures", key=key)

    found: list[str] = []
    query: dict[str, str] = {"limit": "1"}
    for _ in paths:
        answer = call(params=query)
        assert answer.status_code == 200, answer.text[:500]
        found += [failure["image_path"] for failure in answer.json()["failures"]]
        query["cursor"] = answer.json()["next_cursor"]
    assert query["cursor"] is None
    assert found == paths
