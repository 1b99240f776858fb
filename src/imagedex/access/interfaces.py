"""Where keys are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from imagedex.access.records import ApiKey, Scope


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key together with what its secret is compared with."""

    key: ApiKey
    secret_hash: str = field(repr=False)  # SHA-256 of the secret, hexadecimal.


class KeyStore(Protocol):
    """Keys in durable storage. Safe to call from several threads and processes."""

    def add(self, stored: StoredKey) -> None:
        """Keep a new key; it is durable on return. Raises Conflict when its id is taken."""
        ...

    def find(self, key_id: str) -> StoredKey | None:
        """Return a key as it is now, revoked ones included, or None."""
        ...

    def list(self) -> tuple[ApiKey, ...]:
        """Return all keys, revoked ones included, in the order of their creation."""
        ...

    def revoke(self, key_id: str, moment: datetime) -> ApiKey | None:
        """Mark a key as revoked, durably, and return it; None when there is no such key.

        A key that is revoked already keeps the moment of its first revocation.
        """
        ...

    def has_active(self, scope: Scope) -> bool:
        """Say whether some key that is not revoked carries exactly this scope."""
        ...
