"""Making, checking and revoking keys."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection

import structlog

from imagedex.access.interfaces import KeyStore, StoredKey
from imagedex.access.key_secrets import hash_secret, key_id_of, new_key_id, new_secret
from imagedex.access.records import ApiKey, Principal, Scope
from imagedex.core.errors import AuthenticationFailed, Conflict, InvalidRequest, NotFound
from imagedex.core.times import utc_now

ADMIN_SETTING_KEY_ID = "admin-setting"
MAX_NAME_LENGTH = 100
REMEMBERED_SECONDS = 1.0
_MAX_REMEMBERED = 1024

_log = structlog.get_logger(__name__)

# Compared with when there is no such key, so that a wrong id costs what a wrong secret costs.
_HASH_OF_NOTHING = hash_secret(secrets.token_urlsafe(32))


class KeyService:
    """Decides who holds a valid key. Safe to call from several threads.

    A key that was just found valid is remembered for ``REMEMBERED_SECONDS``, so that a burst of
    requests does not look it up each time. A key that is revoked through this service stops
    working at once, one that another process revokes after that time at the latest.

    Parameters
    ----------
    admin_key
        The operator's own key from the settings, which has all scopes. Only its hash is kept,
        and only in memory.
    """

    def __init__(
        self,
        store: KeyStore,
        admin_key: str | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._admin_hash = None if admin_key is None else hash_secret(admin_key)
        self._monotonic = monotonic
        self._remembered: dict[str, tuple[Principal, float]] = {}  # By hash, until when.
        self._remembering = threading.Lock()
        self._revocations = 0

    def create(self, name: str, scopes: Collection[Scope]) -> tuple[ApiKey, str]:
        """Make a key and return it with its secret, which cannot be had again.

        Raises InvalidRequest for a name that cannot be listed on one line or for no scope.
        """
        _require_listable_name(name)
        if not scopes:
            raise InvalidRequest(
                f"The key {name!r} would have no scope; give at least one of "
                f"{', '.join(scope.value for scope in Scope)}."
            )
        key = ApiKey(
            key_id=new_key_id(),
            name=name,
            scopes=frozenset(scopes),
            created_at=utc_now(),
            revoked_at=None,
        )
        secret = new_secret(key.key_id)
        self._store.add(StoredKey(key, hash_secret(secret)))
        scope_names = sorted(scope.value for scope in key.scopes)
        _log.info("api_key_created", api_key_id=key.key_id, scopes=scope_names)
        return key, secret

    def remembered(self, secret: str) -> Principal | None:
        """Return who holds this secret if that was found out just now; does no I/O."""
        known = self._remembered.get(hash_secret(secret))
        if known is None or known[1] <= self._monotonic():
            return None
        return known[0]

    def authenticate(self, secret: str) -> Principal:
        """Return who holds this secret.

        Raises AuthenticationFailed, with the same text and after the same work (one look-up,
        two comparisons in constant time) for a secret that is malformed, unknown or revoked.
        """
        presented = hash_secret(secret)
        revocations = self._revocations
        stored = self._store.find(key_id_of(secret) or "")
        is_known = secrets.compare_digest(
            presented, _HASH_OF_NOTHING if stored is None else stored.secret_hash
        )
        is_admin_setting = secrets.compare_digest(presented, self._admin_hash or _HASH_OF_NOTHING)
        if is_admin_setting:
            principal = Principal(ADMIN_SETTING_KEY_ID, frozenset({Scope.ADMIN}))
            return self._remember(presented, principal, revocations)
        if stored is not None and is_known and stored.key.revoked_at is None:
            principal = Principal(stored.key.key_id, stored.key.scopes)
            return self._remember(presented, principal, revocations)
        raise AuthenticationFailed(
            "The API key is not valid; send one that was made by `imagedex keys create` "
            "and is not revoked."
        )

    def _remember(self, presented: str, principal: Principal, revocations: int) -> Principal:
        with self._remembering:
            # What was read before a revocation must not outlive it.
            if revocations == self._revocations:
                if len(self._remembered) >= _MAX_REMEMBERED:
                    self._remembered.clear()
                self._remembered[presented] = principal, self._monotonic() + REMEMBERED_SECONDS
        return principal

    def list(self) -> tuple[ApiKey, ...]:
        """Return all stored keys, revoked ones included, in the order of their creation."""
        return self._store.list()

    def revoke(self, key_id: str) -> ApiKey:
        """End a key for good and return it; ending it again changes nothing.

        Raises NotFound, and Conflict for the operator's own key, which only the settings end.
        """
        if key_id == ADMIN_SETTING_KEY_ID:
            raise Conflict(
                f"The key {key_id!r} comes from IMAGEDEX_ADMIN_KEY and cannot be revoked here; "
                "change that setting and start the server again."
            )
        key = self._store.revoke(key_id, utc_now())
        if key is None:
            raise NotFound(f"There is no key {key_id!r}; `imagedex keys list` shows all ids.")
        with self._remembering:
            self._revocations += 1
            self._remembered.clear()
        _log.info("api_key_revoked", api_key_id=key_id)
        return key

    def ensure_admin_key(self) -> str | None:
        """Make a first admin key when nobody could manage keys otherwise; return its secret.

        Returns None when the settings hold an admin key, or a stored one is active.
        """
        if self._admin_hash is not None or self._store.has_active(Scope.ADMIN):
            return None
        _, secret = self.create("first admin key", {Scope.ADMIN})
        return secret


def _require_listable_name(name: str) -> None:
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidRequest(
            f"A key cannot be named {name[:MAX_NAME_LENGTH]!r}; use 1 to {MAX_NAME_LENGTH} "
            "printable characters."
        )
