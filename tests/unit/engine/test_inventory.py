"""The file that names the hosts of workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.core.errors import SettingsError
from imagedex.core.paths import PathMapping
from imagedex.engine.hosts import DEFAULT_PYTHON, HostSpec
from imagedex.engine.inventory import read_inventory


def test_an_inventory_says_all_of_each_host(tmp_path: Path) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(
        """
[[host]]
name = "gpu1"
address = "10.0.0.11"
user = "imagedex"
port = 2222
python = "/opt/imagedex/bin/python3.11"
threads = 8
gpus = [0, 1]
models = "/opt/imagedex/models"
[host.paths]
"/srv/photos" = "/data/photos"

[[host]]
name = "plain"
address = "plain.example.org"
workers = 3
"""
    )
    first, second = read_inventory(path)
    assert first == HostSpec(
        name="gpu1",
        address="10.0.0.11",
        port=2222,
        user="imagedex",
        python="/opt/imagedex/bin/python3.11",
        threads=8,
        gpus=(0, 1),
        paths=PathMapping([("/srv/photos", "/data/photos")]),
        models="/opt/imagedex/models",
    )
    assert (first.slots, second.slots) == (2, 3)
    assert second == HostSpec(name="plain", address="plain.example.org", workers=3)
    assert second.python == DEFAULT_PYTHON


def test_an_empty_inventory_names_no_host(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").touch()
    assert read_inventory(tmp_path / "hosts.toml") == ()


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ('name = "a"', r"host\.0\.address: Field required"),
        ('address = "a"', r"host\.0\.name: Field required"),
        ('name = "a b"\naddress = "a"', r"host\.0\.name"),
        ('name = "local"\naddress = "a"', "controller's own machine"),
        ('name = "a"\naddress = "a; rm"', r"host\.0\.address"),
        ('name = "a"\naddress = "-oProxyCommand=x"', r"host\.0\.address"),
        ('name = "a"\naddress = "a"\npython = "python; rm -r ~"', r"host\.0\.python"),
        ('name = "a"\naddress = "a"\npython = "~/bin/python"', r"host\.0\.python"),
        ('name = "a"\naddress = "a"\nport = "22"', r"host\.0\.port"),
        ('name = "a"\naddress = "a"\nport = 0', r"host\.0\.port"),
        ('name = "a"\naddress = "a"\nworkers = 0', r"host\.0\.workers"),
        ('name = "a"\naddress = "a"\ngpu = 0', r"host\.0\.gpu: Extra inputs"),
        ('name = "a"\naddress = "a"\npaths = {"srv" = "/data"}', "absolute path"),
        ('name = "a"\naddress = "a"\nmodels = "models"', r"host\.0\.models"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named(tmp_path: Path, entry: str, told: str) -> None:
    (tmp_path / "hosts.toml").write_text(f"[[host]]\n{entry}\n")
    with pytest.raises(SettingsError, match=rf"hosts\.toml.*{told}"):
        read_inventory(tmp_path / "hosts.toml")


def test_two_hosts_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text('[[host]]\nname="a"\naddress="b"\n' * 2)
    with pytest.raises(SettingsError, match="two hosts 'a'"):
        read_inventory(tmp_path / "hosts.toml")


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="IMAGEDEX_ENGINE__INVENTORY"):
        read_inventory(tmp_path / "missing.toml")
    (tmp_path / "hosts.toml").write_text("[[host")
    with pytest.raises(SettingsError, match="not TOML"):
        read_inventory(tmp_path / "hosts.toml")
