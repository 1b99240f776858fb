"""The authority of an engine and its leaves."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from imagedex.core.errors import SettingsError
from imagedex.core.times import utc_now
from imagedex.engine import _authority
from imagedex.engine._authority import Authority
from imagedex.engine._worker_config import WorkerConfig


def load(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def test_a_leaf_without_days_outlasts_any_run_of_a_server() -> None:
    leaf = load(Authority.new().leaf("controller").certificate)
    assert leaf.not_valid_before_utc < utc_now()
    assert leaf.not_valid_after_utc > utc_now() + timedelta(days=9 * 365)


def test_a_leaf_lasts_as_long_as_asked_and_no_longer_than_its_authority() -> None:
    authority = Authority.new()
    month = load(authority.leaf("gpu1", days=30).certificate)
    assert abs(month.not_valid_after_utc - utc_now() - timedelta(days=30)) < timedelta(minutes=1)
    assert load(authority.leaf("x", days=1e4).certificate).not_valid_after_utc <= authority.ends_at


def test_a_leaf_is_signed_for_both_ends_and_can_sign_nothing() -> None:
    credentials = Authority.new().leaf("gpu1")
    leaf, authority = load(credentials.certificate), load(credentials.trusted)
    leaf.verify_directly_issued_by(authority)
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "gpu1"
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_no_two_leaves_have_the_same_key_and_none_shows_it() -> None:
    authority = Authority.new()
    first, second = authority.leaf("a"), authority.leaf("a")
    assert first.key != second.key
    assert "PRIVATE" not in repr(first)
    assert first.trusted == second.trusted
    assert authority.installation != Authority.new().installation


def test_an_authority_is_kept_in_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    authority = Authority.open_or_make(tmp_path / "tls")
    [file] = (tmp_path / "tls").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    again = Authority.open_or_make(tmp_path / "tls")
    assert again.installation == authority.installation
    load(again.leaf("x").certificate).verify_directly_issued_by(load(authority.leaf("y").trusted))


def test_an_authority_that_ends_within_a_year_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(_authority, "_AUTHORITY_DAYS", 360)
        old = Authority.new()
        (tmp_path / "tls").mkdir()
        old.write(tmp_path / "tls" / "authority.pem")
    new = Authority.open_or_make(tmp_path / "tls")
    assert new.installation != old.installation
    assert Authority.open_or_make(tmp_path / "tls").installation == new.installation


@pytest.mark.parametrize("content", ["", "no PEM at all", "key", "certificate", "two of them"])
def test_a_file_that_is_no_authority_is_told_with_the_remedy(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tls" / "authority.pem"
    path.parent.mkdir()
    Authority.new().write(path)
    whole = path.read_text()
    cut = whole.index("-----BEGIN CERTIFICATE")
    other = Authority.new().leaf("x")
    pieces = {
        "key": whole[:cut],
        "certificate": whole[cut:],
        "two of them": other.key + whole[cut:],
    }
    path.write_text(pieces.get(content, content))
    with pytest.raises(SettingsError, match=r"authority\.pem.*Remove the file"):
        Authority.open_or_make(tmp_path / "tls")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "tls").write_text("a file where a directory should be")
    with pytest.raises(SettingsError, match="tls"):
        Authority.open_or_make(tmp_path / "tls")


def test_a_worker_config_survives_its_line() -> None:
    config = WorkerConfig(
        worker_id="gpu1-1.2.1",
        host="h",
        threads=2,
        scheduler_address="tls://127.0.0.1:1",
        scratch_directory="/tmp/a b\n",
        controller_pid=42,
        credentials=Authority.new().leaf("h"),
        is_remote=True,
        ports="8790:8849",
        paths=(("/srv", "/data"),),
        gpu=1,
    )
    line = config.to_line()
    assert line.count(b"\n") == 1
    assert WorkerConfig.from_line(line) == config
