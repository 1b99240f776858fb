from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from imagedex.core.errors import SettingsError
from imagedex.database import Database, Snapshot
from imagedex.database.migrating import migrate, newest_revision
from imagedex.database.schema import REVISION
from imagedex.database.tables import UPKEEP_KINDS, metadata
from imagedex.jobs import JobKind, Lane


@pytest.fixture
def database(empty_url: str) -> Iterator[Database]:
    database = Database(empty_url)
    yield database
    database.close()


_POSTGRESQL_SCHEMA = """
SELECT table_name || '.' || column_name, concat_ws(
  ' ', data_type, is_nullable, column_default, collation_name)
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace
"""


def schema(snapshot: Snapshot) -> dict[str, str]:
    """Return what the database says of all tables, for Alembic does not compare all of it."""
    query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
    if snapshot.connection.dialect.name == "postgresql":
        query = _POSTGRESQL_SCHEMA
    rows = snapshot.connection.exec_driver_sql(query)
    return {name: "".join(of.split()) for name, of in rows if "alembic_version" not in name}


def test_the_migrations_make_what_the_tables_say(database: Database) -> None:
    database.upgrade()
    with database.read() as snapshot:
        context = MigrationContext.configure(
            snapshot.connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
        migrated = schema(snapshot)
    with database.transaction() as transaction:
        metadata.drop_all(transaction.connection)
        metadata.create_all(transaction.connection)
        assert schema(transaction) == migrated


def test_a_file_may_lie_at_a_path_with_any_characters(tmp_path: Path) -> None:
    # A percent sign in a path must not be taken for a template by anybody.
    folder = tmp_path / "100% & more"
    folder.mkdir()
    database = Database(f"sqlite:///{folder / 'imagedex.db'}")
    database.upgrade()
    with database.read() as snapshot:
        assert "jobs" in schema(snapshot)
    database.close()


def test_upgrading_again_changes_nothing(database: Database) -> None:
    database.upgrade()
    with database.transaction() as transaction:
        transaction.connection.exec_driver_sql(
            "INSERT INTO indexes (index_prefix, created_at) VALUES ('/p', 0)"
        )
    database.upgrade()
    with database.read() as snapshot:
        rows = snapshot.connection.exec_driver_sql("SELECT index_prefix FROM indexes").scalars()
        assert list(rows) == ["/p"]


def test_images_of_an_older_database_stay_when_their_ids_go(database: Database) -> None:
    with database.transaction() as transaction:
        migrate(transaction.connection, revision="0007")
        transaction.connection.exec_driver_sql(
            "INSERT INTO indexes (index_id, index_prefix, created_at) VALUES (1, '/p', 0)"
        )
        transaction.connection.exec_driver_sql(
            "INSERT INTO images (index_id, image_path, image_id, state, size) "
            "VALUES (1, '/a', '00', 'indexed', 7), (1, '/b', '01', 'failed', 8)"
        )
    database.upgrade()
    with database.read() as snapshot:
        rows = snapshot.connection.exec_driver_sql("SELECT * FROM images").mappings().all()
    assert [(row["image_path"], row["state"], row["size"]) for row in rows] == [
        ("/a", "indexed", 7),
        ("/b", "failed", 8),
    ]
    assert "image_id" not in rows[0]


def test_a_database_of_a_newer_version_is_refused_as_it_is(database: Database) -> None:
    database.upgrade()
    with database.transaction() as transaction:
        transaction.connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SettingsError, match=r"'9999'.*newer version"):
        database.upgrade()


def test_the_rule_of_one_running_job_per_lane_knows_the_lanes_of_all_kinds() -> None:
    kinds = ", ".join(f"'{kind.value}'" for kind in JobKind if kind.lane is Lane.UPKEEP)
    assert f"({kinds})" == UPKEEP_KINDS


def test_the_newest_migration_is_the_one_that_is_expected() -> None:
    assert newest_revision() == REVISION


def test_a_database_that_is_up_to_date_needs_no_alembic(database_url: str) -> None:
    code = (
        "import sys; from imagedex.database import Database; "
        "Database(sys.argv[1]).upgrade(); print('alembic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, database_url], capture_output=True, check=True
    )
    assert done.stdout == b"False\n"
