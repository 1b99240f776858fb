"""Who may do what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Scope(StrEnum):
    """What a key allows. ``admin`` includes the others."""

    QUERY = "query"  # Search, thumbnails, statistics.
    INDEX = "index"  # Jobs: submit, watch, cancel, retry.
    ADMIN = "admin"  # Keys and whatever changes the server.


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is listed; the secret itself is shown once and never stored."""

    key_id: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a valid key."""

    key_id: str
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Say whether the key has this scope, or admin."""
        return scope in self.scopes or Scope.ADMIN in self.scopes
