"""Where settings come from, and what is said about wrong ones."""

from pathlib import Path

import pytest

from imagedex.core.errors import SettingsError
from imagedex.settings import load_settings


def test_settings_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("IMAGEDEX_HOME", str(tmp_path))
    monkeypatch.setenv("IMAGEDEX_IMAGE_ROOTS", "/photos:/more/photos")
    monkeypatch.setenv("IMAGEDEX_SERVER__PORT", "9000")
    monkeypatch.setenv("IMAGEDEX_INDEXING__IGNORE", "*_thumb.jpg:private/*")
    settings = load_settings()
    assert settings.indexing.ignore == ("*_thumb.jpg", "private/*")
    assert settings.home == tmp_path
    assert settings.image_roots == (Path("/photos"), Path("/more/photos"))
    assert settings.server.port == 9000
    assert settings.effective_index_prefix == tmp_path / "index"
    assert settings.effective_database_url == f"sqlite:///{tmp_path}/imagedex.db"


def test_the_environment_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "imagedex.toml"
    config.write_text(
        'image_roots = ["/from/file"]\nlog_level = "debug"\n[server]\nport = 1\nhost = "::1"\n'
    )
    monkeypatch.setenv("IMAGEDEX_SERVER__PORT", "2")
    settings = load_settings(config)
    assert settings.image_roots == (Path("/from/file"),)
    assert settings.log_level == "debug"
    assert (settings.server.port, settings.server.host) == (2, "::1")


def test_what_is_given_in_code_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEDEX_LOG_LEVEL", "error")
    assert load_settings(log_level="debug").log_level == "debug"


def test_a_secret_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEDEX_ADMIN_KEY", "very-secret-admin-key")
    assert "very-secret" not in repr(load_settings())


@pytest.mark.parametrize(
    ("name", "value", "setting"),
    [
        ("IMAGEDEX_SERVER__PORT", "many", "server.port"),
        ("IMAGEDEX_SERVER__PROT", "80", "server.prot"),
        ("IMAGEDEX_IMAGE_ROOTS", "photos", "image_roots"),
        ("IMAGEDEX_ADMIN_KEY", "short", "admin_key"),
        ("IMAGEDEX_INDEXING__CHUNK_IMAGES", "0", "indexing.chunk_images"),
        ("IMAGEDEX_EMBEDDING__PRECISION", "fp16", "embedding.precision"),
        ("IMAGEDEX_EMBEDDING__RUNTIME", "torch", "embedding.runtime"),
    ],
)
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, setting: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=setting):
        load_settings()


def test_an_unknown_setting_in_the_file_is_named(tmp_path: Path) -> None:
    config = tmp_path / "imagedex.toml"
    config.write_text("image_rots = []\n")
    with pytest.raises(SettingsError, match="image_rots"):
        load_settings(config)


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    config = tmp_path / "imagedex.toml"
    config.write_text("image_roots = [\n")
    with pytest.raises(SettingsError, match=r"imagedex\.toml"):
        load_settings(config)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing\.toml"):
        load_settings(tmp_path / "missing.toml")


def test_the_database_is_a_secret_that_does_not_show(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = "postgresql://imagedex:geheim@db/imagedex"
    monkeypatch.setenv("IMAGEDEX_DATABASE_URL", url)
    monkeypatch.setenv("IMAGEDEX_INDEX_PREFIX", str(tmp_path / "index"))
    settings = load_settings(home=tmp_path / "home")
    assert settings.effective_database_url == url
    assert "geheim" not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.parametrize("prefix", [None, "home/index"])
def test_a_server_of_databases_needs_an_index_that_others_reach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prefix: str | None
) -> None:
    monkeypatch.setenv("IMAGEDEX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IMAGEDEX_DATABASE_URL", "postgresql://imagedex:geheim@db/imagedex")
    if prefix is not None:
        monkeypatch.setenv("IMAGEDEX_INDEX_PREFIX", str(tmp_path / prefix))
    with pytest.raises(SettingsError, match=r"database_url.*IMAGEDEX_INDEX_PREFIX") as caught:
        load_settings()
    assert "geheim" not in f"{caught.value} {caught.value.__cause__}"


def test_an_empty_database_url_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMAGEDEX_DATABASE_URL", "")
    assert (
        load_settings(home=tmp_path).effective_database_url == f"sqlite:///{tmp_path}/imagedex.db"
    )


def test_the_engines_files_are_found_from_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("IMAGEDEX_ENGINE__INVENTORY", "~/hosts.toml")
    monkeypatch.setenv("IMAGEDEX_ENGINE__SSH_KEYS", f"~/.ssh/a:{tmp_path}/b")
    monkeypatch.setenv("IMAGEDEX_ENGINE__SSH_KNOWN_HOSTS", "~/known")
    engine = load_settings().engine
    assert engine.inventory == tmp_path / "hosts.toml"
    assert engine.ssh_keys == (tmp_path / ".ssh" / "a", tmp_path / "b")
    assert engine.ssh_known_hosts == tmp_path / "known"


@pytest.mark.parametrize("ports", ["8790-", "9000-8790", "1-70000", "8790:8849", "a-b", ""])
def test_ports_of_workers_are_a_range(ports: str) -> None:
    assert load_settings(engine={"worker_ports": "8790-8849"}).engine.worker_ports == "8790-8849"
    assert load_settings(engine={"worker_ports": "8790"}).engine.worker_ports == "8790"
    with pytest.raises(SettingsError, match="worker_ports"):
        load_settings(engine={"worker_ports": ports})
