"""Keys are made once, told once, remembered for a second at most, and ended at once."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagedex.access import ADMIN_SETTING_KEY_ID, KeyService, Principal, Scope, StoredKey
from imagedex.access.service import REMEMBERED_SECONDS
from imagedex.core.errors import AuthenticationFailed, Conflict, InvalidRequest, NotFound
from imagedex.core.times import utc_now
from imagedex.testing.job_store import ManualClock
from imagedex.testing.key_store import InMemoryKeyStore

ADMIN_SETTING = "an operator's own key"


@pytest.fixture
def store() -> InMemoryKeyStore:
    return InMemoryKeyStore()


@pytest.fixture
def keys(store: InMemoryKeyStore) -> KeyService:
    return KeyService(store)


def test_secret_names_its_key_and_carries_256_bits(keys: KeyService) -> None:
    key, secret = keys.create("uploader", {Scope.INDEX})
    assert re.fullmatch(rf"imgdx_{key.key_id}_[A-Za-z0-9_-]{{43}}", secret)


def test_secret_opens_with_the_scopes_of_its_key(keys: KeyService) -> None:
    key, secret = keys.create("uploader", {Scope.INDEX, Scope.QUERY})
    assert keys.authenticate(secret) == Principal(key.key_id, frozenset({Scope.INDEX, Scope.QUERY}))


def test_two_keys_never_share_an_id_or_a_secret(keys: KeyService) -> None:
    made = [keys.create("same name", {Scope.QUERY}) for _ in range(50)]
    assert len({key.key_id for key, _ in made}) == len({secret for _, secret in made}) == 50


def test_store_never_sees_the_secret(keys: KeyService, store: InMemoryKeyStore) -> None:
    key, secret = keys.create("uploader", {Scope.INDEX})
    stored = store.find(key.key_id)
    assert stored is not None
    assert secret.rpartition("_")[2] not in f"{stored!r}{stored.secret_hash}"
    assert stored.secret_hash not in repr(stored)


@pytest.mark.parametrize(
    "damage",
    [
        lambda secret: "",
        lambda secret: secret[:-1],
        lambda secret: secret + "A",
        lambda secret: secret[:-1] + ("A" if secret[-1] != "A" else "B"),
        lambda secret: secret.upper(),
        lambda secret: f" {secret}",
        lambda secret: f"{secret}\n",
        lambda secret: secret.replace(secret.split("_")[1], "0" * 12),
        lambda secret: "imgdx__" + secret[-43:],
        lambda secret: secret[-43:],
        lambda secret: "\udcff" + secret[1:],
        lambda secret: "imgdx_%_" + secret[-43:],
    ],
)
def test_anything_but_the_secret_is_refused_with_one_and_the_same_text(
    keys: KeyService, damage: object
) -> None:
    assert callable(damage)
    _, secret = keys.create("uploader", {Scope.INDEX})
    with pytest.raises(AuthenticationFailed) as refused:
        keys.authenticate(damage(secret))
    with pytest.raises(AuthenticationFailed) as unknown:
        keys.authenticate("imgdx_000000000000_" + "A" * 43)
    assert str(refused.value) == str(unknown.value)


@given(secret=st.text(max_size=80))
def test_no_string_opens_or_breaks_the_check(secret: str) -> None:
    keys = KeyService(InMemoryKeyStore(), admin_key=ADMIN_SETTING)
    with pytest.raises(AuthenticationFailed):
        keys.authenticate(secret)


def test_hash_of_a_secret_does_not_open(keys: KeyService, store: InMemoryKeyStore) -> None:
    key, _ = keys.create("uploader", {Scope.INDEX})
    stored = store.find(key.key_id)
    assert stored is not None
    with pytest.raises(AuthenticationFailed):
        keys.authenticate(stored.secret_hash)


def test_revoked_key_stops_working_at_once_and_others_go_on(keys: KeyService) -> None:
    key, secret = keys.create("lost laptop", {Scope.ADMIN})
    _, other = keys.create("uploader", {Scope.INDEX})
    keys.authenticate(secret)
    revoked = keys.revoke(key.key_id)
    assert revoked.revoked_at is not None
    with pytest.raises(AuthenticationFailed):
        keys.authenticate(secret)
    keys.authenticate(other)


def test_revoking_twice_keeps_the_first_moment(keys: KeyService) -> None:
    key, _ = keys.create("lost laptop", {Scope.QUERY})
    assert keys.revoke(key.key_id) == keys.revoke(key.key_id)


def test_revoking_an_unknown_key_is_not_found(keys: KeyService) -> None:
    with pytest.raises(NotFound, match="ffffffffffff"):
        keys.revoke("ffffffffffff")


def test_keys_are_listed_with_the_revoked_ones(keys: KeyService) -> None:
    first, _ = keys.create("first", {Scope.QUERY})
    second, _ = keys.create("second", {Scope.INDEX})
    revoked = keys.revoke(first.key_id)
    assert keys.list() == (revoked, second)


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "two\nlines", "bell\a", "nul\0", "\udcff"])
def test_name_that_cannot_be_listed_is_refused(keys: KeyService, name: str) -> None:
    with pytest.raises(InvalidRequest, match="printable"):
        keys.create(name, {Scope.QUERY})
    assert keys.list() == ()


def test_key_without_a_scope_is_refused(keys: KeyService) -> None:
    with pytest.raises(InvalidRequest, match="query, index, admin"):
        keys.create("useless", set())


def test_admin_setting_has_every_scope_and_is_not_stored() -> None:
    keys = KeyService(InMemoryKeyStore(), admin_key=ADMIN_SETTING)
    principal = keys.authenticate(ADMIN_SETTING)
    assert principal.key_id == ADMIN_SETTING_KEY_ID
    assert all(principal.may(scope) for scope in Scope)
    assert keys.list() == ()
    assert ADMIN_SETTING not in repr(vars(keys))


def test_admin_setting_cannot_be_revoked() -> None:
    keys = KeyService(InMemoryKeyStore(), admin_key=ADMIN_SETTING)
    with pytest.raises(Conflict, match="IMAGEDEX_ADMIN_KEY"):
        keys.revoke(ADMIN_SETTING_KEY_ID)


def test_first_admin_key_is_made_once(keys: KeyService) -> None:
    secret = keys.ensure_admin_key()
    assert secret is not None
    assert keys.authenticate(secret).may(Scope.ADMIN)
    assert keys.ensure_admin_key() is None


def test_first_admin_key_is_made_again_when_the_last_one_was_revoked(keys: KeyService) -> None:
    keys.create("no admin", {Scope.QUERY, Scope.INDEX})
    first = keys.ensure_admin_key()
    assert first is not None
    keys.revoke(keys.authenticate(first).key_id)
    second = keys.ensure_admin_key()
    assert second not in (None, first)


def test_no_admin_key_is_made_when_the_settings_hold_one() -> None:
    keys = KeyService(InMemoryKeyStore(), admin_key=ADMIN_SETTING)
    assert keys.ensure_admin_key() is None
    assert keys.list() == ()


@pytest.mark.parametrize("scope", [Scope.QUERY, Scope.INDEX])
def test_scope_does_not_include_another(keys: KeyService, scope: Scope) -> None:
    principal = keys.authenticate(keys.create("narrow", {scope})[1])
    assert [other for other in Scope if principal.may(other)] == [scope]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def remembering(store: InMemoryKeyStore, clock: ManualClock) -> KeyService:
    """A service whose memory runs by the clock."""
    return KeyService(store, admin_key=ADMIN_SETTING, monotonic=clock)


def test_key_is_remembered_for_a_second_after_it_was_looked_up(
    remembering: KeyService, clock: ManualClock
) -> None:
    key, secret = remembering.create("uploader", {Scope.INDEX})
    assert remembering.remembered(secret) is None
    principal = remembering.authenticate(secret)
    assert remembering.remembered(secret) == principal == Principal(key.key_id, key.scopes)
    clock.advance(0.99 * REMEMBERED_SECONDS)
    assert remembering.remembered(secret) == principal
    clock.advance(0.01 * REMEMBERED_SECONDS + 0.001)
    assert remembering.remembered(secret) is None
    remembering.authenticate(secret)
    assert remembering.remembered(secret) == principal


def test_remembering_a_key_does_not_make_its_second_longer(
    remembering: KeyService, clock: ManualClock
) -> None:
    _, secret = remembering.create("uploader", {Scope.INDEX})
    remembering.authenticate(secret)
    for _ in range(4):
        assert remembering.remembered(secret) is not None
        clock.advance(REMEMBERED_SECONDS / 4)
    assert remembering.remembered(secret) is None


def test_key_that_is_revoked_here_is_forgotten_at_once(remembering: KeyService) -> None:
    key, secret = remembering.create("lost laptop", {Scope.ADMIN})
    remembering.authenticate(secret)
    remembering.revoke(key.key_id)
    assert remembering.remembered(secret) is None


def test_key_that_another_process_revoked_is_forgotten_after_a_second(
    remembering: KeyService, store: InMemoryKeyStore, clock: ManualClock
) -> None:
    key, secret = remembering.create("lost laptop", {Scope.ADMIN})
    remembering.authenticate(secret)
    KeyService(store).revoke(key.key_id)
    clock.advance(REMEMBERED_SECONDS)
    assert remembering.remembered(secret) is None
    with pytest.raises(AuthenticationFailed):
        remembering.authenticate(secret)


def test_key_that_is_revoked_while_it_is_looked_up_is_not_remembered(clock: ManualClock) -> None:
    class RevokingStore(InMemoryKeyStore):
        """Has its key revoked between the look-up and the end of the check."""

        def find(self, key_id: str) -> StoredKey | None:
            found = super().find(key_id)
            service.revoke(key_id)
            return found

    service = KeyService(RevokingStore(), monotonic=clock)
    _, secret = service.create("lost laptop", {Scope.ADMIN})
    service.authenticate(secret)  # What was read came before the revocation: a last time.
    assert service.remembered(secret) is None


@pytest.mark.parametrize("secret", ["", "unknown", "imgdx_000000000000_" + "A" * 43, "\udcff"])
def test_secret_that_is_not_valid_is_never_remembered(remembering: KeyService, secret: str) -> None:
    with pytest.raises(AuthenticationFailed):
        remembering.authenticate(secret)
    assert remembering.remembered(secret) is None


def test_revoked_key_is_not_remembered_again(
    remembering: KeyService, store: InMemoryKeyStore
) -> None:
    key, secret = remembering.create("lost laptop", {Scope.ADMIN})
    store.revoke(key.key_id, utc_now())
    with pytest.raises(AuthenticationFailed):
        remembering.authenticate(secret)
    assert remembering.remembered(secret) is None


def test_admin_setting_is_remembered_too(remembering: KeyService) -> None:
    principal = remembering.authenticate(ADMIN_SETTING)
    assert remembering.remembered(ADMIN_SETTING) == principal


def test_number_of_remembered_keys_is_bounded(remembering: KeyService) -> None:
    secrets = [remembering.create("many", {Scope.QUERY})[1] for _ in range(3000)]
    for secret in secrets:
        remembering.authenticate(secret)
    remembered = [secret for secret in secrets if remembering.remembered(secret) is not None]
    assert secrets[-1] in remembered
    assert len(remembered) <= 1024
