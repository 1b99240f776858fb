"""What holds for transactions on every kind of database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from imagedex.core.errors import SettingsError, StorageError
from imagedex.database import Database, Snapshot


@pytest.fixture
def database(empty_url: str) -> Iterator[Database]:
    database = Database(empty_url)
    yield database
    database.close()


@pytest.fixture
def table(database: Database) -> Database:
    with database.transaction() as transaction:
        transaction.connection.execute(text("CREATE TABLE word (text TEXT PRIMARY KEY)"))
    return database


def insert(database: Database, *words: str) -> None:
    with database.transaction() as transaction:
        for word in words:
            insert_in(transaction, word)


def insert_in(snapshot: Snapshot, word: str) -> None:
    snapshot.connection.execute(text("INSERT INTO word VALUES (:word)"), {"word": word})


def words_in(snapshot: Snapshot) -> list[str]:
    return list(snapshot.connection.execute(text("SELECT text FROM word ORDER BY text")).scalars())


def words(database: Database) -> list[str]:
    with database.read() as snapshot:
        return words_in(snapshot)


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
    with pytest.raises(StorageError, match=r"read-?only"), table.read() as snapshot:
        insert_in(snapshot, "a")
    assert words(table) == []


def test_a_transaction_sees_what_others_committed_before_its_turn_came(
    table: Database, empty_url: str
) -> None:
    """Its view must not be older than its turn: what it reads is what it changes."""
    other = Database(empty_url)  # As of another process: it does not stand in line here.
    seen: list[list[str]] = []
    is_waiting = threading.Event()

    def read_when_it_is_our_turn() -> None:
        is_waiting.set()
        with other.transaction() as transaction:
            seen.append(words_in(transaction))

    with table.transaction() as transaction:
        waiting = threading.Thread(target=read_when_it_is_our_turn)
        waiting.start()
        assert is_waiting.wait(60)
        time.sleep(0.1)
        insert_in(transaction, "a")
    waiting.join()
    other.close()
    assert seen == [["a"]]


def test_a_transaction_inside_another_is_a_defect_and_not_a_deadlock(table: Database) -> None:
    with table.transaction():
        with pytest.raises(RuntimeError, match="already inside"):
            insert(table, "a")
        assert words(table) == []
    insert(table, "a")


def test_writers_of_many_threads_all_get_their_turn(table: Database) -> None:
    with table.transaction() as transaction:
        transaction.connection.execute(text("CREATE TABLE counter (n INTEGER)"))
        transaction.connection.execute(text("INSERT INTO counter VALUES (0)"))

    def count() -> None:
        for _ in range(25):
            with table.transaction() as transaction:
                n = transaction.connection.execute(text("SELECT n FROM counter")).scalar_one()
                transaction.connection.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with table.read() as snapshot:
        assert snapshot.connection.execute(text("SELECT n FROM counter")).scalar_one() == 200


def test_alone_each_statement_is_stored_at_once(table: Database) -> None:
    with suppress(ZeroDivisionError), table.lone() as alone:
        insert_in(alone, "a")
        assert words(table) == ["a"]
        raise ZeroDivisionError
    insert(table, "b")
    assert words(table) == ["a", "b"]


def test_the_clock_of_the_database_goes_on_within_a_transaction(database: Database) -> None:
    before = time.time()
    with database.transaction() as transaction, database.read() as snapshot:
        first = transaction.now()
        time.sleep(0.01)
        assert before - 1 <= first < transaction.now() <= snapshot.now() <= time.time() + 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "cannot be read"),
        ("imagedex.db", "cannot be read"),
        ("mysql://user:geheim@host/db", "'mysql' is not supported"),
        ("postgresql+psycopg2://user:geheim@host/db", "is not supported"),
        ("postgresql://user:geheim@host", "names no database"),
        ("postgresql://user:ge@heim@host/db", "more than one '@'"),
        ("postgresql://user:a@heim/b@host/db", "more than one '@'"),
        ("postgresql://user:a@heim/b?c@host/db", "more than one '@'"),
        ("postgresql://user:a@host/b?heim=c", "options that are not supported"),
        ("postgresql://host:geheim/db", "cannot be read"),
        ("postgresql://user@host/db?password=geheim", "options that are not supported"),
        ("postgresql://user@host/db?options=-c%20x%3Dgeheim", "options that are not supported"),
        ("sqlite+aiosqlite:////tmp/x.db", "is not supported"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("sqlite:////tmp/x.db?mode=ro", "without options"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_its_secrets(url: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        Database(url)
    errors: list[BaseException | None] = [caught.value, caught.value.__cause__]
    assert not any("heim" in str(error) for error in errors)
