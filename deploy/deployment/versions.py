"""The versions on this host, each a virtual environment of its own, and which one is current."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from deployment.machine import DeploymentFailed, run, say
from deployment.packages import install_packages

_COMPLETE = "complete"
_CONFIRMED = "confirmed"
_PREVIOUS = "previous"
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class Versions:
    """Versions below ``base``; the link ``current`` names the one that the unit starts.

    A version is named by its number and a digest of what was installed and for which Python, so
    that two builds of one number are two versions, and so are those before and after an upgrade
    of the distribution. ``user`` is the one that the server runs as.
    """

    def __init__(self, base: Path, user: str) -> None:
        self._base = base
        self._user = user

    def directory(self, version: str) -> Path:
        """Return where a version lies."""
        return self._base / "versions" / version

    def unit(self, version: str) -> Path:
        """Return the unit that starts a version."""
        return self.directory(version) / "imagedex.service"

    def all(self) -> list[str]:
        """Return the versions that are whole, by name."""
        found = (self._base / "versions").glob(f"*/{_COMPLETE}")
        return sorted(marker.parent.name for marker in found)

    def current(self) -> str | None:
        """Return the version that the unit starts."""
        link = self._base / "current"
        return link.readlink().name if link.is_symlink() else None

    def make_current(self, version: str) -> None:
        """Let the unit start this version from its next start on."""
        new = self._base / "current.new"
        new.unlink(missing_ok=True)
        new.symlink_to(Path("versions") / version)
        new.replace(self._base / "current")
        _sync_directory(self._base)

    def previous(self, version: str) -> str | None:
        """Return the version that was current before this one was put in its place."""
        note = self.directory(version) / _PREVIOUS
        name = note.read_text("utf-8").strip() if note.is_file() else ""
        return name if name and (self.directory(name) / _COMPLETE).is_file() else None

    def note_previous(self, version: str, previous: str | None) -> None:
        """Remember what to go back to from a version, which has to prove itself anew."""
        directory = self.directory(version)
        (directory / _CONFIRMED).unlink(missing_ok=True)
        (directory / _PREVIOUS).write_text(f"{previous or ''}\n", "utf-8")
        _sync_directory(directory)

    def is_confirmed(self, version: str) -> bool:
        """Say whether the version has become ready since it was put in place."""
        return (self.directory(version) / _CONFIRMED).is_file()

    def confirm(self, version: str) -> None:
        """Remember that the version has become ready."""
        (self.directory(version) / _CONFIRMED).touch()

    def prepare(self, package: Path, wheels: Path, unit: Path) -> str:
        """Make the virtual environment of the wheel in ``package``, unless it is there.

        The unit that starts it is kept beside it.

        Raises DeploymentFailed; what is there half is made anew the next time.
        """
        (wheel,) = package.glob("*.whl")
        lock = package / "requirements.lock"
        digest = hashlib.sha256(_PYTHON.encode())
        for part in (wheel, lock, unit):
            digest.update(hashlib.sha256(part.read_bytes()).digest())
        version = f"{wheel.name.split('-')[1]}-{digest.hexdigest()[:12]}"
        directory = self.directory(version)
        if (directory / _COMPLETE).is_file():
            return version
        say(f"Installing version {version}.")
        shutil.rmtree(directory, ignore_errors=True)
        run(sys.executable, "-m", "venv", "--without-pip", directory)
        source = ("--no-index", "--find-links", wheels) if wheels.is_dir() else ()
        pip = (self._installer(), "-m", "pip", "--python", directory / "bin" / "python")
        install_packages(pip, wheel, lock, source)
        told = run(directory / "bin" / "imagedex", "--version", user=self._user)
        if not told.startswith("imagedex "):
            raise DeploymentFailed(f"{wheel.name} is not Imagedex: it says {told[:200]!r}.")
        shutil.copyfile(unit, self.unit(version))
        (directory / _COMPLETE).touch()
        _sync_directory(directory)
        return version

    def _installer(self) -> Path:
        """Return a Python with pip; versions need none."""
        directory = self._base / f"installer-{_PYTHON}"
        if not (directory / _COMPLETE).is_file():
            run(sys.executable, "-m", "venv", "--clear", directory)
            (directory / _COMPLETE).touch()
        return directory / "bin" / "python"

    def forget_others(self, current: str, *, kept: int) -> None:
        """Remove all versions but the current one and as many before it."""
        keep = [current]
        while len(keep) <= kept and (previous := self.previous(keep[-1])) not in (None, *keep):
            keep.append(str(previous))
        for directory in (self._base / "versions").iterdir():
            if directory.name not in keep:
                shutil.rmtree(directory)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
