"""Jobs when several controllers share the database, and when they are killed."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from imagedex.catalog import SqlCatalog
from imagedex.database import Database
from imagedex.jobs import ChunkState, JobStatus, SqlJobStore
from imagedex.testing.job_store import make_new_job
from support.children import child, read_line, run_together, write_line

_SUBMIT = """
    import sys
    from imagedex.database import Database
    from imagedex.jobs import IdempotencyKey, SqlJobStore
    from imagedex.testing.job_store import make_new_job

    store = SqlJobStore(Database(sys.argv[1]))
    print("ready")
    sys.stdin.readline()
    for number in range(20):
        key = IdempotencyKey("client", str(number), "hash")
        print(store.submit(make_new_job(int(sys.argv[2]), f"request {number}"), key).job_id)
"""


def test_processes_that_submit_the_same_requests_at_once_get_the_same_jobs(
    database: Database, database_url: str
) -> None:
    index_id = SqlCatalog(database).ensure_index(Path("/index")).index_id
    outputs = run_together(_SUBMIT, [(database_url, index_id)] * 3)
    assert outputs[0] == outputs[1] == outputs[2]
    assert len(set(outputs[0])) == 20
    page = SqlJobStore(database).list_jobs(status=JobStatus.QUEUED, limit=1, cursor=None)
    assert page.total == 20


_SUBMIT_ONE = """
    import sys
    from imagedex.database import Database
    from imagedex.jobs import SqlJobStore
    from imagedex.testing.job_store import make_new_job

    store = SqlJobStore(Database(sys.argv[1]))
    print("ready")
    sys.stdin.readline()
    print(*{store.submit(make_new_job(int(sys.argv[2]))).job_id for _ in range(200)})
"""


def test_one_request_that_comes_hundreds_of_times_at_once_makes_one_job(
    database: Database, database_url: str
) -> None:
    index_id = SqlCatalog(database).ensure_index(Path("/index")).index_id
    outputs = run_together(_SUBMIT_ONE, [(database_url, index_id)] * 2)
    page = SqlJobStore(database).list_jobs(status=None, limit=9, cursor=None)
    assert outputs == [[job.job_id] for job in page.items] * 2


_RACE = """
    import sys
    from imagedex.core.errors import LeaseLost
    from imagedex.database import Database
    from imagedex.jobs import JobStatus, SqlJobStore

    database = Database(sys.argv[1])
    store = SqlJobStore(database, lease_seconds=600)
    print("ready")
    sys.stdin.readline()
    while store.list_jobs(status=JobStatus.QUEUED, limit=1, cursor=None).total:
        lease = store.lease_next(sys.argv[2])
        if lease is not None:
            print(lease.job.job_id, lease.job.index_id, lease.fence)
            with database.transaction() as transaction:
                store.assert_held(transaction, lease)
            store.finish(lease, JobStatus.COMPLETED, None)
"""


def test_processes_that_race_for_leases_run_each_job_once(
    database: Database, database_url: str
) -> None:
    store = SqlJobStore(database)
    catalog = SqlCatalog(database)
    indexes = [catalog.ensure_index(Path(f"/index/{name}")).index_id for name in "ab"]
    submitted = {
        store.submit(make_new_job(index_id, str(number))).job_id
        for index_id in indexes
        for number in range(15)
    }
    outputs = run_together(_RACE, [(database_url, name) for name in ("x", "y", "z")])
    leased = [line.split() for output in outputs for line in output]
    assert Counter(job_id for job_id, _, _ in leased) == dict.fromkeys(submitted, 1)
    for index_id in indexes:
        fences = sorted(int(fence) for _, index, fence in leased if int(index) == index_id)
        assert fences == list(range(1, 16))
    done = store.list_jobs(status=JobStatus.COMPLETED, limit=1, cursor=None).total
    assert done == len(submitted)


_CONTROLLER = """
    import sys, threading
    import structlog
    from imagedex.database import Database
    from imagedex.jobs import ChunkState, JobKind, JobRunner, SqlJobStore
    from imagedex.testing.job_store import make_done, make_plan

    database = Database(sys.argv[1])
    store = SqlJobStore(database, lease_seconds=600)

    def handler(run):
        job_id = run.lease.job.job_id
        if not run.lease.job.is_planned:
            plan = make_plan(*(f"/{number} /{number}b" for number in range(60)))
            store.save_plan(run.lease, plan, total_images=120, settled_images=0, failures=())
        for chunk in store.chunks(job_id, ChunkState.PLANNED):
            run.checkpoint()
            failed = chunk.image_paths[0] if chunk.number % 10 == 0 else ""
            done = make_done(chunk.number, indexed=2 - bool(failed), failed=failed)
            with database.transaction() as transaction:
                store.checkpoint_embedded(transaction, run.lease, done)
            print(chunk.number)
            sys.stdin.readline()

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    store.expire_own("home:")
    runner = JobRunner(store, {JobKind.FULL: handler}, owner=f"home:{sys.argv[2]}")
    runner.start()
    threading.Event().wait()
"""


def test_a_job_whose_controller_is_killed_goes_on_after_its_last_chunk(
    database: Database, database_url: str
) -> None:
    store = SqlJobStore(database)
    index_id = SqlCatalog(database).ensure_index(Path("/index")).index_id
    job = store.submit(make_new_job(index_id))
    told: list[int] = []
    for life in range(4):
        with child(_CONTROLLER, database_url, life) as controller:
            for _ in range(15):
                told.append(int(read_line(controller)))
                if told[-1] % 15 != 14:
                    write_line(controller, "go on")
            if life == 3:
                write_line(controller, "go on")
                _wait_for_end(store, job.job_id)
    ended = store.get(job.job_id)
    assert ended.status is JobStatus.COMPLETED
    assert (ended.total_images, ended.processed_images, ended.failed_images) == (120, 120, 6)
    assert store.failures(job.job_id, limit=10, cursor=None).total == 6
    assert len(store.chunks(job.job_id, ChunkState.EMBEDDED)) == 60
    # A chunk whose checkpoint was told is never run again.
    assert told == list(range(60))


def _wait_for_end(store: SqlJobStore, job_id: str) -> None:
    deadline = time.monotonic() + 60
    while not store.get(job_id).status.is_final:
        assert time.monotonic() < deadline
        time.sleep(0.01)
