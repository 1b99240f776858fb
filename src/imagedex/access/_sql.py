"""Keys in the database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from imagedex.access.interfaces import StoredKey
from imagedex.access.records import ApiKey, Scope
from imagedex.core.errors import Conflict
from imagedex.database import Database
from imagedex.database.tables import api_keys

# All but the hash, which nothing but a comparison needs.
_LISTED = (
    api_keys.c.key_id,
    api_keys.c.name,
    api_keys.c.scopes,
    api_keys.c.created_at,
    api_keys.c.revoked_at,
)


class SqlKeyStore:
    """Keys in the table ``api_keys``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, stored: StoredKey) -> None:
        """Keep a new key; it is durable on return. Raises Conflict when its id is taken."""
        key = stored.key
        row = {
            "key_id": key.key_id,
            "name": key.name,
            "secret_hash": stored.secret_hash,
            "scopes": " ".join(sorted(key.scopes)),
            "created_at": key.created_at.timestamp(),
            "revoked_at": None if key.revoked_at is None else key.revoked_at.timestamp(),
        }
        try:
            with self._database.transaction() as transaction:
                transaction.connection.execute(insert(api_keys).values(row))
        except IntegrityError as error:
            raise Conflict(f"There is a key {key.key_id!r} already; make another.") from error

    def find(self, key_id: str) -> StoredKey | None:
        """Return a key as it is now, revoked ones included, or None."""
        query = select(*_LISTED, api_keys.c.secret_hash).where(api_keys.c.key_id == key_id)
        with self._database.read() as snapshot:
            row = snapshot.connection.execute(query).one_or_none()
        return None if row is None else StoredKey(_to_key(row), row.secret_hash)

    def list(self) -> tuple[ApiKey, ...]:
        """Return all keys, revoked ones included, in the order of their creation."""
        query = select(*_LISTED).order_by(api_keys.c.created_at, api_keys.c.key_id)
        with self._database.read() as snapshot:
            return tuple(_to_key(row) for row in snapshot.connection.execute(query))

    def revoke(self, key_id: str, moment: datetime) -> ApiKey | None:
        """Mark a key as revoked and return it; the first revocation counts."""
        is_wanted = api_keys.c.key_id == key_id
        with self._database.transaction() as transaction:
            connection = transaction.connection
            connection.execute(
                update(api_keys)
                .where(is_wanted, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=moment.timestamp())
            )
            row = connection.execute(select(*_LISTED).where(is_wanted)).one_or_none()
        return None if row is None else _to_key(row)

    def has_active(self, scope: Scope) -> bool:
        """Say whether some key that is not revoked carries exactly this scope."""
        query = select(api_keys.c.scopes).where(api_keys.c.revoked_at.is_(None))
        with self._database.read() as snapshot:
            rows = snapshot.connection.execute(query).scalars().all()
        return any(scope in scopes.split() for scopes in rows)


def _to_key(row: Row[*tuple[Any, ...]]) -> ApiKey:
    return ApiKey(
        key_id=row.key_id,
        name=row.name,
        scopes=frozenset(Scope(word) for word in row.scopes.split()),
        created_at=datetime.fromtimestamp(row.created_at, UTC),
        revoked_at=None if row.revoked_at is None else datetime.fromtimestamp(row.revoked_at, UTC),
    )
