from __future__ import annotations

import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from imagedex.core.errors import SettingsError, StorageError, Unavailable
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


def words_in(snapshot: Snapshot) -> list[str]:
    query = "SELECT text FROM word ORDER BY text"
    return list(snapshot.connection.exec_driver_sql(query).scalars())


def words(database: Database) -> list[str]:
    with database.read() as snapshot:
        return words_in(snapshot)


def pragma(snapshot: Snapshot, name: str) -> object:
    return snapshot.connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def test_the_file_and_its_log_are_the_owners_alone(table: Database) -> None:
    insert(table, "a")
    files = list(Path(table.where).parent.iterdir())
    assert {path.name for path in files} == {"imagedex.db", "imagedex.db-wal", "imagedex.db-shm"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_a_commit_survives_a_power_cut_and_foreign_keys_hold(database: Database) -> None:
    for begin in (database.transaction, database.read):
        with begin() as snapshot:
            assert pragma(snapshot, "journal_mode") == "wal"
            assert pragma(snapshot, "synchronous") == 2  # FULL
            assert pragma(snapshot, "foreign_keys") == 1
            assert pragma(snapshot, "busy_timeout") == 30_000


def test_a_transaction_is_stored_whole_or_not_at_all(table: Database) -> None:
    insert(table, "a")
    with pytest.raises(IntegrityError):
        insert(table, "b", "c", "a")
    assert words(table) == ["a"]


def test_a_snapshot_does_not_change_while_others_write(table: Database) -> None:
    insert(table, "a")
    with table.read() as snapshot:
        assert words_in(snapshot) == ["a"]
        insert(table, "b")
        assert words_in(snapshot) == ["a"]
    assert words(table) == ["a", "b"]


def test_a_snapshot_cannot_write(table: Database) -> None:
    with pytest.raises(StorageError, match="readonly"), table.read() as snapshot:
        snapshot.connection.exec_driver_sql("INSERT INTO word VALUES ('a')")
    assert words(table) == []


def test_a_transaction_inside_another_is_a_defect_and_not_a_deadlock(table: Database) -> None:
    with table.transaction():
        with pytest.raises(RuntimeError, match="already inside"):
            insert(table, "a")
        assert words(table) == []
    insert(table, "a")


def test_writers_of_many_threads_all_get_their_turn(table: Database) -> None:
    with table.transaction() as transaction:
        transaction.connection.exec_driver_sql("CREATE TABLE counter (n INTEGER)")
        transaction.connection.exec_driver_sql("INSERT INTO counter VALUES (0)")

    def count() -> None:
        for _ in range(25):
            with table.transaction() as transaction:
                query = "SELECT n FROM counter"
                n = transaction.connection.exec_driver_sql(query).scalar_one()
                transaction.connection.exec_driver_sql("UPDATE counter SET n = ?", (n + 1,))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with table.read() as snapshot:
        query = "SELECT n FROM counter"
        assert snapshot.connection.exec_driver_sql(query).scalar_one() == 200


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
    content = bytearray(Path(table.where).read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    Path(table.where).write_bytes(content)
    with pytest.raises(StorageError, match="damaged; stop the server"):
        words(table)


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'none' / 'imagedex.db'}")
    with pytest.raises(StorageError, match="its directory exists"):
        database.upgrade()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "cannot be read"),
        ("imagedex.db", "cannot be read"),
        ("postgresql://user:geheim@host/db", "'postgresql' is not supported"),
        ("sqlite+aiosqlite:////tmp/x.db", "is not supported"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("sqlite:////tmp/x.db?mode=ro", "without options"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secrets(url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        Database(url)
    assert "geheim" not in str(caught.value)


def test_alone_each_statement_is_stored_at_once(table: Database) -> None:
    with pytest.raises(ZeroDivisionError), table.lone() as alone:
        alone.connection.exec_driver_sql("INSERT INTO word VALUES ('a')")
        assert words(table) == ["a"]
        raise ZeroDivisionError
    insert(table, "b")
    assert words(table) == ["a", "b"]


def test_the_clock_of_a_file_is_the_machines(database: Database) -> None:
    before = time.time()
    with database.transaction() as transaction, database.read() as snapshot:
        assert before <= transaction.now() <= snapshot.now() <= time.time()
