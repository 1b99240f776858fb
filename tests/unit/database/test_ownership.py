"""One owner of the jobs of a database, and nothing recorded by a former one."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from sqlalchemy import func, insert, select

from imagedex.core.errors import HomeInUse, OwnershipLost, Unavailable
from imagedex.database import Database, FileOwnership, SharedOwnership, held
from imagedex.database.tables import indexes

_HELD_BY_ANOTHER = """
import sys
from imagedex.database import Database, FileOwnership
ownership = FileOwnership(Database(sys.argv[1]))
ownership.try_take()
print("taken", flush=True)
sys.stdin.read()
"""


class _Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.moment = 100.0

    def __call__(self) -> float:
        return self.moment


def _controller(database: Database, name: str, *, lease_seconds: float = 30.0) -> SharedOwnership:
    return SharedOwnership(
        database, holder=name, url=f"http://{name}:1", lease_seconds=lease_seconds
    )


def _count(database: Database) -> int:
    with database.read() as snapshot:
        return int(
            snapshot.connection.execute(select(func.count()).select_from(indexes)).scalar_one()
        )


def _write(database: Database, name: str) -> None:
    with database.transaction() as transaction:
        transaction.connection.execute(
            insert(indexes).values(index_prefix=name, created_at=0.0, fence=4)
        )


def test_one_of_two_takes_it_and_the_other_after_its_release(database: Database) -> None:
    one, two = _controller(database, "one"), _controller(database, "two")
    assert one.try_take()
    assert not two.try_take()
    assert not one.try_take()
    one.renew()
    one.release()
    assert two.try_take()
    assert (one.term, two.term) == (1, 2)
    with pytest.raises(OwnershipLost, match="Another controller has taken over"):
        one.renew()
    one.release()
    two.renew()


def test_whoever_is_silent_loses_it_and_can_record_nothing(database: Database) -> None:
    _write(database, "/index")
    one = _controller(database, "one", lease_seconds=0.05)
    two = _controller(database, "two")
    assert one.try_take()
    guarded = database.guarded(one.require_held)
    _write(guarded, "/in-time")
    time.sleep(0.06)
    # As long as nobody has taken it, nothing is lost.
    _write(guarded, "/late")
    assert two.try_take()
    with pytest.raises(OwnershipLost, match="Term 2 has begun since term 1"):
        _write(guarded, "/too-late")
    assert _count(database) == 3
    _write(database.guarded(two.require_held), "/new")
    _write(database, "/of-anybody")
    with database.read() as snapshot:
        fences = snapshot.connection.execute(select(indexes.c.fence)).scalars().all()
    # Those that were there rose with each taking; so no lease of before is as high.
    assert sorted(fences) == [4, 4, 5, 5, 6]


def test_a_lease_that_cannot_be_renewed_is_given_up_before_its_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _Clock()
    ownership = SharedOwnership(
        database, holder="one", url="http://one:1", lease_seconds=8.0, monotonic=clock
    )
    assert ownership.try_take()

    def fail() -> None:
        raise Unavailable("The database is away.")

    monkeypatch.setattr(database, "lone", fail)
    clock.moment += 5.9
    with pytest.raises(Unavailable):
        ownership.renew()
    clock.moment += 0.2
    with pytest.raises(OwnershipLost, match="could not be renewed in time"):
        ownership.renew()


def test_a_command_holds_it_for_as_long_as_it_works(database: Database) -> None:
    one, two = _controller(database, "one"), _controller(database, "two")
    other = held(two, database)
    with held(one, database), pytest.raises(HomeInUse, match="are run by one at http://one:1"):
        other.__enter__()
    with held(two, database):
        assert two.term == 2


def test_two_homes_on_one_file_are_refused(sqlite_database: Database) -> None:
    database = sqlite_database
    url = f"sqlite:///{database.where}"
    process = subprocess.Popen(
        [sys.executable, "-c", _HELD_BY_ANOTHER, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"taken\n"
        with pytest.raises(
            HomeInUse, match=rf"process {process.pid} since .*; talk to that server"
        ):
            FileOwnership(database).try_take()
        # Nobody can take that away, so nothing is asked of the database.
        assert FileOwnership(database).term == 0
    finally:
        process.kill()
        process.communicate()
    ownership = FileOwnership(database)
    assert ownership.try_take()
    ownership.release()
