"""What a database on a PostgreSQL server withstands: silence, restarts, refusals, any text."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import text

from imagedex.catalog import Catalog, SqlCatalog
from imagedex.core.errors import Conflict, ImagedexError, SettingsError, Unavailable
from imagedex.core.images import FailureReason, ImageFailure
from imagedex.database import Database, DatabaseState, state_of
from imagedex.database import _postgresql as postgresql_module
from imagedex.jobs import JobStatus, SqlJobStore
from imagedex.testing.job_store import make_new_job, make_plan
from support.children import child, read_line, write_line
from support.postgres import PASSWORD, PostgresServer


@pytest.fixture
def url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    with postgres.new_database(postgres_template) as url:
        yield url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


def prefixes(database: Database) -> list[str]:
    return [str(index.index_prefix) for index in SqlCatalog(database).list_indexes()]


def test_it_is_shared_and_known_without_user_and_password(
    database: Database, postgres: PostgresServer, url: str
) -> None:
    assert database.is_shared
    assert database.where == f"127.0.0.1:{postgres.port}/{url.rpartition('/')[2]}"


def test_a_server_can_be_reached_by_its_socket(postgres: PostgresServer, url: str) -> None:
    user, name = url.partition("@127.0.0.1:")[0], url.rpartition("/")[2]
    folder = quote(str(postgres.folder), safe="")
    database = Database(f"{user}@/{name}?host={folder}&port={postgres.port}")
    assert prefixes(database) == []
    assert database.where == f"{postgres.folder}:{postgres.port}/{name}"
    database.close()


def test_of_several_servers_one_that_is_there_is_used(postgres: PostgresServer, url: str) -> None:
    user, name = url.partition("@127.0.0.1:")[0], url.rpartition("/")[2]
    hosts = f"host=127.0.0.1,127.0.0.1&port=1,{postgres.port}"
    database = Database(f"{user}@/{name}?{hosts}&target_session_attrs=read-write")
    assert prefixes(database) == []
    database.close()


_HOLD = """
    import sys
    from sqlalchemy import text
    from imagedex.core.errors import Unavailable
    from imagedex.database import Database

    database = Database(sys.argv[1])
    insert = text("INSERT INTO indexes (index_prefix, created_at) VALUES (:prefix, 0)")
    try:
        with database.transaction() as transaction:
            transaction.connection.execute(insert, {"prefix": "/frozen"})
            print("begun")
            sys.stdin.readline()
            transaction.connection.execute(insert, {"prefix": "/woken"})
    except Unavailable as error:
        print(error)
    with database.transaction() as transaction:
        transaction.connection.execute(insert, {"prefix": "/afterwards"})
    print("again")
"""


def test_a_frozen_writer_gives_way_and_what_it_began_counts_no_more(
    database: Database, url: str
) -> None:
    with child(_HOLD, url) as holder:
        assert read_line(holder) == "begun"
        holder.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        SqlCatalog(database).ensure_index(Path("/other"))
        assert time.monotonic() - began < 7 + 5  # Some for a busy machine.
        holder.send_signal(signal.SIGCONT)
        write_line(holder, "go on")
        told = read_line(holder)
        assert "silent too long" in told or "cannot be reached" in told
        assert read_line(holder) == "again"
    assert prefixes(database) == ["/other", "/afterwards"]


def test_a_writer_that_keeps_the_lock_too_long_makes_it_unavailable(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_module, "_LOCK_TIMEOUT_SECONDS", 1)
    impatient = Database(url)
    with database.transaction() as transaction:
        transaction.connection.execute(text("SELECT 1"))
        with pytest.raises(Unavailable, match="kept it locked too long"):
            SqlCatalog(impatient).ensure_index(Path("/index"))
    SqlCatalog(impatient).ensure_index(Path("/index"))
    impatient.close()


def test_alone_one_does_not_stand_in_the_line_of_writers(database: Database, url: str) -> None:
    other = Database(url)
    with database.transaction() as transaction:
        transaction.connection.execute(text("SELECT count(*) FROM jobs"))
        with other.lone() as alone:
            insert = "INSERT INTO indexes (index_prefix, created_at) VALUES ('/lone', 0)"
            alone.connection.execute(text(insert))
        assert prefixes(database) == ["/lone"]
    other.close()


def test_a_server_that_was_restarted_is_used_again() -> None:
    server = PostgresServer(is_durable=True)
    try:
        server.start()
        with server.new_database() as url:
            database = Database(url)
            database.upgrade()
            store = SqlJobStore(database)
            index_id = SqlCatalog(database).ensure_index(Path("/index")).index_id
            job = store.submit(make_new_job(index_id))
            lease = store.lease_next("a")
            assert lease is not None
            server.stop(signal.SIGKILL)
            with pytest.raises(Unavailable):
                store.renew(lease)
            with pytest.raises(Unavailable):
                store.get(job.job_id)
            server.start()
            # The first calls may still meet connections that broke.
            for _ in range(2):
                with suppress(Unavailable):
                    store.renew(lease)
            store.renew(lease)
            store.save_plan(lease, make_plan("/a"), total_images=1, settled_images=0, failures=())
            assert store.get(job.job_id).is_planned
            database.close()
    finally:
        server.remove()


def errors_of(error: BaseException) -> str:
    """Return the text of an error and of all that led to it."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    return "\n".join(texts)


@pytest.mark.parametrize(
    ("password", "user", "name", "kind", "told"),
    [
        ("wrong'%25\u2028", "imagedex", "postgres", SettingsError, "IMAGEDEX_DATABASE_URL"),
        (PASSWORD, "imagedex", "no_such_database", SettingsError, "no_such_database"),
        (PASSWORD, "nobody", "postgres", SettingsError, "refuses the connection"),
    ],
)
def test_a_refused_connection_is_told_without_the_password(
    postgres: PostgresServer,
    password: str,
    user: str,
    name: str,
    kind: type[ImagedexError],
    told: str,
) -> None:
    quoted = quote(password, safe="")
    database = Database(f"postgresql://{user}:{quoted}@127.0.0.1:{postgres.port}/{name}")
    with pytest.raises(kind, match=told) as caught:
        database.upgrade()
    for secret in (password, quoted, repr(password)[1:-1]):
        assert secret not in errors_of(caught.value)
        assert secret not in repr(database)
    database.close()


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    database = Database("postgresql://imagedex:geheim@127.0.0.1:1/imagedex")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/imagedex.*cannot be reached") as caught:
        database.upgrade()
    assert "geheim" not in errors_of(caught.value)


def test_a_missing_driver_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "imagedex.database._postgresql")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingsError, match=r"pip install 'imagedex\[postgresql\]'"):
        Database("postgresql://user@host/imagedex")


def test_a_database_that_cannot_hold_all_paths_is_refused(postgres: PostgresServer) -> None:
    options = "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"
    with postgres.new_database(options) as url:
        database = Database(url)
        with pytest.raises(SettingsError, match="ENCODING 'UTF8'"):
            database.upgrade()
        database.close()


def test_its_copies_are_the_servers_business(database: Database, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="pg_dump"):
        database.back_up(tmp_path / "copy.db")
    with pytest.raises(Conflict, match="pg_restore"):
        database.move_aside()
    assert list(tmp_path.iterdir()) == []


def test_its_state_is_told(postgres: PostgresServer) -> None:
    with postgres.new_database() as url:
        database = Database(url)
        assert state_of(database)[0] is DatabaseState.MISSING
        database.upgrade()
        assert state_of(database)[0] is DatabaseState.SOUND
        with database.transaction() as transaction:
            transaction.connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        assert state_of(database)[0] is DatabaseState.OLDER
        database.close()


@pytest.fixture
def american(postgres: PostgresServer) -> Iterator[Database]:
    """A database whose own order of texts is that of a language."""
    options = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'"
    with postgres.new_database(options) as url:
        database = Database(url)
        database.upgrade()
        yield database
        database.close()


def fail(database: Database, catalog: Catalog, index_id: int, *failures: ImageFailure) -> None:
    with database.transaction() as transaction:
        catalog.record_failures(transaction, index_id, failures)


def failure(path: str, detail: str = "") -> ImageFailure:
    return ImageFailure(path, FailureReason.TRUNCATED, detail, None)


def test_paths_go_by_their_bytes_whatever_the_language_of_the_database(american: Database) -> None:
    with american.read() as snapshot:
        order = "SELECT 'a' < 'B'"
        assert snapshot.connection.execute(text(order)).scalar_one()  # It is another one here.
    catalog = SqlCatalog(american)
    index_id = catalog.ensure_index(Path("/index")).index_id
    below = ["/p/B", "/p/a", "/p/a-b", "/p/a/c", "/p/Ä", "/p/é", "/p/\U0001f600"]
    beside = ["/p", "/p-x", "/P/a", "/p0", "/pa", "/q"]
    fail(american, catalog, index_id, *map(failure, below + beside))
    (outline,) = catalog.outline(index_id, "/p")
    assert outline.image_paths == sorted(below)
    assert catalog.count_below(index_id, "/p") == len(below)
    store = SqlJobStore(american)
    store.submit(make_new_job(index_id))
    lease = store.lease_next("a")
    assert lease is not None
    failures = [failure(path) for path in below]
    store.save_plan(lease, (), total_images=7, settled_images=7, failures=failures)
    listed: list[str] = []
    cursor = None
    while cursor is not None or not listed:
        page = store.failures(lease.job.job_id, limit=2, cursor=cursor)
        listed += [one.image_path for one in page.items]
        cursor = page.next_cursor
    assert listed == sorted(below)


def test_messages_of_others_may_hold_what_no_text_of_a_database_does(database: Database) -> None:
    catalog = SqlCatalog(database)
    index_id = catalog.ensure_index(Path("/index")).index_id
    fail(database, catalog, index_id, failure("/a", "it ends \0 here"))
    assert [one.detail for one in catalog.failures(index_id)] == [
        "it ends \N{REPLACEMENT CHARACTER} here"
    ]
    store = SqlJobStore(database)
    store.submit(make_new_job(index_id))
    lease = store.lease_next("a")
    assert lease is not None
    ended = store.finish(lease, JobStatus.FAILED, "\0")
    assert ended.error == "\N{REPLACEMENT CHARACTER}"
    assert catalog.lookup(index_id, ["/a\0"]) == {}


def test_readers_in_many_threads_wait_for_a_connection_and_get_one(database: Database) -> None:
    found: list[list[str]] = []

    def read() -> None:
        for _ in range(5):
            with database.read() as snapshot:
                time.sleep(0.01)
                snapshot.connection.execute(text("SELECT 1"))
            found.append(prefixes(database))

    threads = [threading.Thread(target=read) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[]] * 200
