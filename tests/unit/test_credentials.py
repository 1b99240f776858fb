"""Secrets that lie in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.core.errors import SettingsError
from imagedex.settings import Settings, load_settings

KEY = "a-key-that-lies-in-a-file"
URL = "sqlite:////srv/database/imagedex.db"


def admin_key(settings: Settings) -> str | None:
    return None if settings.admin_key is None else settings.admin_key.get_secret_value()


def test_a_secret_comes_from_the_file_that_its_setting_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "url").write_text(URL)
    monkeypatch.setenv("IMAGEDEX_ADMIN_KEY_FILE", str(tmp_path / "key"))
    config = tmp_path / "imagedex.toml"
    config.write_text(f'database_url_file = "{tmp_path}/url"\n')

    settings = load_settings(config)

    assert admin_key(settings) == KEY
    assert settings.effective_database_url == URL
    assert KEY not in repr(settings)


def test_a_secret_comes_from_the_credentials_of_the_service_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imagedex_admin_key").write_text(KEY)
    (tmp_path / "admin_key").write_text("of-another-program-altogether")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    settings = load_settings()

    assert admin_key(settings) == KEY
    assert settings.database_url is None


def test_what_is_set_otherwise_wins_over_the_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imagedex_admin_key").write_text(KEY)
    (tmp_path / "imagedex_database_url").write_text(URL)
    (tmp_path / "other").write_text("sqlite:////other.db")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("IMAGEDEX_ADMIN_KEY", "the-key-of-the-environment")
    monkeypatch.setenv("IMAGEDEX_DATABASE_URL_FILE", str(tmp_path / "other"))

    settings = load_settings()

    assert admin_key(settings) == "the-key-of-the-environment"
    assert settings.effective_database_url == "sqlite:////other.db"


def test_a_secret_that_is_given_twice_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(KEY)
    monkeypatch.setenv("IMAGEDEX_ADMIN_KEY", "the-key-of-the-environment")
    monkeypatch.setenv("IMAGEDEX_ADMIN_KEY_FILE", str(tmp_path / "key"))

    with pytest.raises(SettingsError, match="admin_key and admin_key_file are both set") as refused:
        load_settings()
    assert "the-key-of-the-environment" not in f"{refused.value}{refused.value.__cause__}"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"\xff\xfe-secret-bytes", "not UTF-8"),
        (b"k" * (64 * 1024 + 1), "more than 65536 bytes"),
        (b"short", "admin_key: .* at least 16"),
    ],
)
def test_a_file_that_holds_no_secret_is_named_and_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, told: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("IMAGEDEX_ADMIN_KEY_FILE", str(path))

    with pytest.raises(SettingsError, match=told) as refused:
        load_settings()

    assert "admin_key" in str(refused.value)
    shown = f"{refused.value}{refused.value.__cause__}"
    assert "secret-bytes" not in shown
    assert "kkkk" not in shown
