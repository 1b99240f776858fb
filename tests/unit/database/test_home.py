from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from imagedex.core.errors import HomeInUse, SettingsError
from imagedex.database import HomeLock, prepare_home


def test_the_home_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    with HomeLock(home):
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "LOCK").stat().st_mode) == 0o600
    prepare_home(home)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o2770, 0o777])
def test_a_home_that_was_open_to_others_is_closed_to_them(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    prepare_home(home)
    assert stat.S_IMODE(home.stat().st_mode) & 0o777 == 0o700


def test_a_home_that_is_closed_already_keeps_its_mode(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    prepare_home(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o500


def test_a_directory_that_all_users_share_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(SettingsError, match=r"all users share.*IMAGEDEX_HOME"):
        prepare_home(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777


def test_a_home_of_another_user_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        home = tmp_path / "home"
        home.mkdir(mode=0o700)
        os.chown(home, 65534, 65534)
    else:
        home = Path("/")
    with pytest.raises(SettingsError, match=r"belongs to user.*IMAGEDEX_HOME"):
        prepare_home(home)


def test_a_home_in_use_names_who_uses_it(tmp_path: Path) -> None:
    with HomeLock(tmp_path):
        with pytest.raises(HomeInUse, match=rf"process {os.getpid()} since 20.*Z") as caught:
            HomeLock(tmp_path).acquire()
        assert "IMAGEDEX_URL" in str(caught.value)
    with HomeLock(tmp_path):
        pass


def test_a_lock_that_is_given_back_can_be_taken_again(tmp_path: Path) -> None:
    lock = HomeLock(tmp_path)
    lock.release()
    lock.acquire()
    with pytest.raises(HomeInUse, match="already"):
        lock.acquire()
    lock.release()
    lock.release()
    lock.acquire()
    lock.release()


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"pid": 1}'])
def test_a_lock_file_without_a_name_still_locks(tmp_path: Path, text: str) -> None:
    with HomeLock(tmp_path):
        (tmp_path / "LOCK").write_text(text)
        with pytest.raises(HomeInUse, match="another process"):
            HomeLock(tmp_path).acquire()


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="IMAGEDEX_HOME"):
        HomeLock(tmp_path / "file" / "home").acquire()


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    home = tmp_path / "home"
    home.mkdir()
    (home / "LOCK").symlink_to(precious)
    with pytest.raises(SettingsError):
        HomeLock(home).acquire()
    assert precious.read_text() == "precious"
