"""Backups of a database in use: whole, checked, and as many as are to be kept."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from imagedex.catalog import SqlCatalog
from imagedex.core.errors import StorageError
from imagedex.database import Database, DatabaseState, state_of
from imagedex.jobs import JobKind, JobRunner, JobStatus, NewJob, Priority, SqlJobStore
from imagedex.upkeep import DatabaseBackups
from support.empty_database import database_in
from support.waiting import wait_until


class _Clock:
    def __init__(self) -> None:
        self.now = datetime(2025, 11, 14, 12, 34, 56, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = database_in(tmp_path / "imagedex.db")
    SqlCatalog(database).ensure_index(Path("/index"))
    yield database
    database.close()


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


def _backups(database: Database, directory: Path, clock: _Clock, keep: int = 3) -> DatabaseBackups:
    return DatabaseBackups(database, directory, keep=keep, now=clock)


def _prefixes(path: Path) -> list[str]:
    """Return the indexes that a database of that file knows."""
    copy = Database(f"sqlite:///{path}")
    try:
        assert state_of(copy)[0] is DatabaseState.SOUND
        return [str(index.index_prefix) for index in SqlCatalog(copy).list_indexes()]
    finally:
        copy.close()


def test_a_backup_is_one_file_for_its_owner_with_all_that_was_committed(
    database: Database, clock: _Clock, tmp_path: Path
) -> None:
    path = _backups(database, tmp_path / "backups", clock).make()
    assert [p.name for p in (tmp_path / "backups").iterdir()] == ["imagedex-20251114T123456Z.db"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert _prefixes(path) == ["/index"]


def test_a_backup_is_made_while_others_read_and_write(
    database: Database, clock: _Clock, tmp_path: Path
) -> None:
    may_stop = threading.Event()
    numbers: list[int] = []

    def write() -> None:
        while not may_stop.is_set():
            SqlCatalog(database).ensure_index(Path(f"/index/{len(numbers)}"))
            numbers.append(len(numbers))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        backups = _backups(database, tmp_path / "backups", clock, keep=100)
        known = []
        for _ in range(5):
            clock.now += timedelta(seconds=1)
            before = len(numbers)
            known.append((before, backups.make()))
    finally:
        may_stop.set()
        writer.join()
    for before, path in known:
        found = _prefixes(path)
        # All that was committed before it, and without gaps: one state, not a mixture.
        assert found == ["/index", *(f"/index/{n}" for n in range(len(found) - 1))]
        assert len(found) - 1 >= before


def test_the_oldest_backups_go(database: Database, clock: _Clock, tmp_path: Path) -> None:
    backups = _backups(database, tmp_path / "backups", clock)
    for _ in range(5):
        backups.make()
        clock.now += timedelta(hours=25)
    assert [path.name[9:17] for path in backups.paths()] == ["20251116", "20251117", "20251118"]


def test_files_of_others_stay_and_rests_go(
    database: Database, clock: _Clock, tmp_path: Path
) -> None:
    directory = tmp_path / "backups"
    directory.mkdir()
    (directory / "notes.txt").write_text("mine")
    (directory / ".imagedex-20251113T123456Z.db.0123456789ab.tmp").write_bytes(b"half")
    _backups(database, directory, clock).make()
    assert sorted(path.name for path in directory.iterdir()) == [
        "imagedex-20251114T123456Z.db",
        "notes.txt",
    ]


def test_on_a_full_disk_the_backups_of_before_stay(
    database: Database, clock: _Clock, small_disk: Path
) -> None:
    backups = _backups(database, small_disk / "backups", clock, keep=1)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    with pytest.raises(StorageError, match=r"full|room"):
        backups.make()
    assert list((small_disk / "backups").iterdir()) == []
    ballast.unlink()
    first = backups.make()
    ballast.write_bytes(bytes(80_000))
    clock.now += timedelta(days=1)
    with pytest.raises(StorageError, match=r"full|room"):
        backups.make()
    assert backups.paths() == [first]
    ballast.unlink()  # SQLite needs some room to read.
    assert _prefixes(first) == ["/index"]


def test_a_damaged_database_takes_no_good_backup_away(
    database: Database, clock: _Clock, tmp_path: Path
) -> None:
    backups = _backups(database, tmp_path / "backups", clock, keep=1)
    good = backups.make()
    database.close()
    data = bytearray(Path(database.where).read_bytes())
    data[4096 * 3 : 4096 * 9] = b"\xaa" * (4096 * 6)
    Path(database.where).write_bytes(data)
    clock.now += timedelta(days=1)
    with pytest.raises(StorageError, match="damaged"):
        backups.make()
    assert backups.paths() == [good]


def test_a_backup_job_that_meets_an_error_is_tried_again(
    database: Database, clock: _Clock, tmp_path: Path
) -> None:
    directory = tmp_path / "backups"
    directory.write_text("in the way")
    backups = _backups(database, directory, clock)
    store = SqlJobStore(database)
    index_id = SqlCatalog(database).ensure_index(Path("/index")).index_id
    job = store.submit(NewJob(index_id, JobKind.BACKUP, {}, Priority.NORMAL, "backup"))
    runner = JobRunner(store, {JobKind.BACKUP: backups.run}, owner="test:1", poll_seconds=0.05)
    runner.start()
    try:
        wait_until(lambda: store.get(job.job_id).error is not None)
        assert "IMAGEDEX_BACKUP__DIRECTORY" in str(store.get(job.job_id).error)
        directory.unlink()
        wait_until(lambda: store.get(job.job_id).status is JobStatus.COMPLETED)
    finally:
        runner.close()
    with closing(sqlite3.connect(backups.paths()[0])) as copy:
        assert copy.execute("SELECT index_prefix FROM indexes").fetchall() == [("/index",)]
