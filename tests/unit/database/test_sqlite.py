"""What holds for a database in one SQLite file."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagedex.core.errors import StorageError, Unavailable
from imagedex.database import Database, Snapshot
from imagedex.database import _sqlite as sqlite_module


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'imagedex.db'}")
    yield database
    database.close()


@pytest.fixture
def table(database: Database) -> Database:
    with database.transaction() as transaction:
        transaction.connection.exec_driver_sql("CREATE TABLE word (text TEXT PRIMARY KEY)")
    return database


def insert(database: Database, *words: str) -> None:
    with database.transaction() as transaction:
        for word in words:
            transaction.connection.exec_driver_sql("INSERT INTO word VALUES (?)", (word,))


def words(database: Database) -> list[str]:
    with database.read() as snapshot:
        query = "SELECT text FROM word ORDER BY text"
        return list(snapshot.connection.exec_driver_sql(query).scalars())


def pragma(snapshot: Snapshot, name: str) -> object:
    return snapshot.connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def test_it_is_known_by_its_path_and_not_shared(database: Database, tmp_path: Path) -> None:
    assert database.where == str(tmp_path / "imagedex.db")
    assert not database.is_shared


def test_the_file_and_its_log_are_the_owners_alone(table: Database) -> None:
    insert(table, "a")
    files = list(Path(table.where).parent.iterdir())
    assert {path.name for path in files} == {"imagedex.db", "imagedex.db-wal", "imagedex.db-shm"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_commit_survives_a_power_cut_and_foreign_keys_hold(database: Database) -> None:
    for begin in (database.transaction, database.read, database.lone):
        with begin() as snapshot:
            assert pragma(snapshot, "journal_mode") == "wal"
            assert pragma(snapshot, "synchronous") == 2  # FULL
            assert pragma(snapshot, "foreign_keys") == 1
            assert pragma(snapshot, "busy_timeout") == 30_000


def test_another_process_that_keeps_the_lock_makes_it_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_TIMEOUT_SECONDS", 0.01)
    database = Database(f"sqlite:///{tmp_path / 'imagedex.db'}")
    with database.transaction() as transaction:
        transaction.connection.exec_driver_sql("CREATE TABLE word (text TEXT)")
    holder = sqlite3.connect(database.where, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="busy") as caught:
        insert(database, "a")
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert words(database) == []
    holder.execute("ROLLBACK")
    holder.close()
    insert(database, "a")
    assert words(database) == ["a"]
    database.close()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "imagedex.db"
    path.write_bytes(b"This is not a database, however long it may be." * 100)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(StorageError, match="not an SQLite database"):
        database.upgrade()
    database.close()


def test_a_damaged_file_is_told(table: Database) -> None:
    insert(table, *(f"{number:04}" * 200 for number in range(100)))
    table.close()
    path = Path(table.where)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StorageError, match="damaged; stop the server"):
        words(table)


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'none' / 'imagedex.db'}")
    with pytest.raises(StorageError, match="its directory exists"):
        database.upgrade()
