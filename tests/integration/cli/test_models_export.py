"""``imagedex models export`` where it cannot begin; exports themselves are in ``exactness``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.commands import Commands


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands({"IMAGEDEX_HOME": str(tmp_path / "home")}, in_process=True)


def test_without_torch_the_error_names_the_command_to_install_it(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "imagedex.models._torch_export", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    error = commands.fail("models", "export", "openai/clip-vit-base-patch32", tmp_path / "out")
    assert "pip install 'imagedex[export]'" in error
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "home").exists()


def test_a_directory_that_is_there_is_not_touched(commands: Commands, tmp_path: Path) -> None:
    assert "is there already" in commands.fail("models", "export", "some/checkpoint", tmp_path)
