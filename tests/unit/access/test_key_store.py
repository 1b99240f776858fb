"""Both key stores keep the contract; the one in the database also survives its process."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagedex.access import KeyStore, Scope
from imagedex.access._sql import SqlKeyStore
from imagedex.core.errors import StorageError
from imagedex.database import Database
from imagedex.testing.key_store import InMemoryKeyStore, KeyStoreContract, make_stored_key


class TestInMemoryKeyStore(KeyStoreContract):
    @pytest.fixture
    def key_store(self) -> KeyStore:
        return InMemoryKeyStore()


class TestSqlKeyStore(KeyStoreContract):
    @pytest.fixture
    def key_store(self, database: Database) -> KeyStore:
        return SqlKeyStore(database)

    def test_keys_outlast_the_connection(self, database: Database, database_url: str) -> None:
        moment = datetime(2025, 11, 14, 12, 34, 56, 789012, tzinfo=UTC)
        stored = make_stored_key("aaaaaaaaaaaa", Scope.QUERY, Scope.INDEX, created_at=moment)
        SqlKeyStore(database).add(stored)
        again = Database(database_url)
        try:
            assert SqlKeyStore(again).find("aaaaaaaaaaaa") == stored
        finally:
            again.close()

    def test_key_that_another_process_revoked_is_revoked_here_at_once(
        self, database: Database, database_url: str
    ) -> None:
        store = SqlKeyStore(database)
        store.add(make_stored_key("aaaaaaaaaaaa"))
        moment = datetime.fromtimestamp(1763123696, UTC)
        other = Database(database_url)
        SqlKeyStore(other).revoke("aaaaaaaaaaaa", moment)
        other.close()
        found = store.find("aaaaaaaaaaaa")
        assert found is not None
        assert found.key.revoked_at == moment


def test_database_that_is_none_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "imagedex.db"
    path.write_bytes(b"not a database, but long enough to be read as one" * 100)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(StorageError):
        SqlKeyStore(database).find("aaaaaaaaaaaa")
    database.close()
