"""A key store in memory, and what every key store must do."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from imagedex.access import ApiKey, KeyStore, Scope, StoredKey
from imagedex.core.errors import Conflict

_MOMENT = datetime(2025, 11, 14, 12, 34, 56, tzinfo=UTC)


class InMemoryKeyStore:
    """Keys that last as long as the object."""

    def __init__(self) -> None:
        self._keys: dict[str, StoredKey] = {}
        self._lock = threading.Lock()

    def add(self, stored: StoredKey) -> None:
        with self._lock:
            if stored.key.key_id in self._keys:
                raise Conflict(f"There is a key {stored.key.key_id!r} already.")
            self._keys[stored.key.key_id] = stored

    def find(self, key_id: str) -> StoredKey | None:
        return self._keys.get(key_id)

    def list(self) -> tuple[ApiKey, ...]:
        keys = [stored.key for stored in self._keys.values()]
        return tuple(sorted(keys, key=lambda key: (key.created_at, key.key_id)))

    def revoke(self, key_id: str, moment: datetime) -> ApiKey | None:
        with self._lock:
            stored = self._keys.get(key_id)
            if stored is None:
                return None
            if stored.key.revoked_at is None:
                stored = replace(stored, key=replace(stored.key, revoked_at=moment))
                self._keys[key_id] = stored
            return stored.key

    def has_active(self, scope: Scope) -> bool:
        return any(
            scope in stored.key.scopes and stored.key.revoked_at is None
            for stored in self._keys.values()
        )


def make_stored_key(
    key_id: str = "0123456789ab",
    *scopes: Scope,
    created_at: datetime = _MOMENT,
    secret_hash: str = "5e" * 32,
) -> StoredKey:
    """Return a key for tests; without scopes it gets ``query``."""
    key = ApiKey(key_id, f"key {key_id}", frozenset(scopes or {Scope.QUERY}), created_at, None)
    return StoredKey(key, secret_hash)


class KeyStoreContract:
    """Inherit and give a fixture ``key_store``."""

    def test_key_that_was_added_is_found_as_it_was(self, key_store: KeyStore) -> None:
        stored = make_stored_key("aaaaaaaaaaaa", Scope.INDEX, Scope.QUERY)
        key_store.add(stored)
        assert key_store.find("aaaaaaaaaaaa") == stored

    def test_unknown_key_is_none(self, key_store: KeyStore) -> None:
        assert key_store.find("aaaaaaaaaaaa") is None
        assert key_store.find("") is None

    def test_id_that_is_taken_is_a_conflict_and_keeps_the_first_key(
        self, key_store: KeyStore
    ) -> None:
        first = make_stored_key("aaaaaaaaaaaa", Scope.QUERY)
        key_store.add(first)
        with pytest.raises(Conflict):
            key_store.add(make_stored_key("aaaaaaaaaaaa", Scope.ADMIN, secret_hash="66" * 32))
        assert key_store.find("aaaaaaaaaaaa") == first

    def test_keys_are_listed_in_order_of_creation_without_their_hashes(
        self, key_store: KeyStore
    ) -> None:
        late = make_stored_key("aaaaaaaaaaaa", created_at=_MOMENT + timedelta(seconds=1))
        early = make_stored_key("bbbbbbbbbbbb")
        key_store.add(late)
        key_store.add(early)
        assert key_store.list() == (early.key, late.key)

    def test_revoked_key_stays_listed_with_its_first_revocation(self, key_store: KeyStore) -> None:
        stored = make_stored_key()
        key_store.add(stored)
        first = key_store.revoke(stored.key.key_id, _MOMENT + timedelta(hours=1))
        again = key_store.revoke(stored.key.key_id, _MOMENT + timedelta(hours=2))
        expected = replace(stored.key, revoked_at=_MOMENT + timedelta(hours=1))
        assert (first, again, key_store.list()) == (expected, expected, (expected,))
        found = key_store.find(stored.key.key_id)
        assert found is not None
        assert found.key == expected

    def test_revoking_an_unknown_key_returns_none(self, key_store: KeyStore) -> None:
        assert key_store.revoke("aaaaaaaaaaaa", _MOMENT) is None

    def test_only_keys_that_are_not_revoked_count_as_active(self, key_store: KeyStore) -> None:
        key_store.add(make_stored_key("aaaaaaaaaaaa", Scope.QUERY))
        assert key_store.has_active(Scope.QUERY)
        assert not key_store.has_active(Scope.ADMIN)
        key_store.add(make_stored_key("bbbbbbbbbbbb", Scope.INDEX, Scope.ADMIN))
        assert key_store.has_active(Scope.ADMIN)
        key_store.revoke("bbbbbbbbbbbb", _MOMENT)
        assert not key_store.has_active(Scope.ADMIN)
