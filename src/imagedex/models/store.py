"""The models of a home: a directory each, which is there from the moment it is complete."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imagedex.core.errors import Conflict, ModelError, NotFound
from imagedex.embedding.clip.lock_file import LOCK_FILE, LockFile
from imagedex.models.disk import storage_errors, sync
from imagedex.models.interfaces import PullWatcher
from imagedex.models.records import InstalledModel

# Hidden, so that no model can have this name.
_WORK = ".incoming"
_REPLACED = "replaced"
_REMOVED = "removed"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
BUNDLED = "bundled"


class ModelStore:
    """The directory of installed models.

    A model appears by one rename, after all of its files are proven and flushed. What is on its
    way lies in a hidden directory beside, under a lock for each model.
    """

    def __init__(self, directory: Path) -> None:
        """Use ``directory``, which is made when the first model comes."""
        self.directory = directory

    def directory_of(self, name: str) -> Path:
        """Return where a model of this name lies or would lie. Raises ModelError for a bad name."""
        if not _NAME.fullmatch(name) or name == BUNDLED:
            raise ModelError(
                f"{name!r} cannot be the name of an installed model: it must begin with a letter "
                "or digit, hold only letters, digits, '.', '_' and '-', have at most 100 of them, "
                f"and not be {BUNDLED!r}."
            )
        return self.directory / name

    def find(self, name: str) -> InstalledModel | None:
        """Return the installed model of this name. Raises ModelError when its lock is damaged."""
        if not _NAME.fullmatch(name):
            return None
        directory = self.directory / name
        lock = LockFile.read(directory) if directory.is_dir() else None
        return InstalledModel(name, directory, lock) if lock is not None else None

    def get(self, name: str) -> InstalledModel:
        """Return the installed model of this name. Raises NotFound, ModelError."""
        model = self.find(name)
        if model is None:
            raise self._not_installed(name)
        return model

    def require_free(self, name: str) -> None:
        """Raise Conflict when something lies where a model of this name would come to lie."""
        directory = self.directory_of(name)
        if self.find(name) is not None:
            raise Conflict(
                f"A model {name!r} is installed already; replace it by --force, or choose another "
                "name. An index that was made with it needs the same files again."
            )
        if os.path.lexists(directory):
            raise Conflict(
                f"{str(directory)!r} is there, but is no model that was installed; move it "
                "elsewhere, or replace it by --force."
            )

    def names(self) -> tuple[str, ...]:
        """Return the names of the installed models, sorted."""
        if not self.directory.is_dir():
            return ()
        with storage_errors("list", self.directory):
            found = sorted(path.name for path in self.directory.iterdir() if path.is_dir())
        return tuple(name for name in found if _NAME.fullmatch(name))

    @contextmanager
    def incoming(self, name: str, watcher: PullWatcher) -> Iterator[Path]:
        """Hold the sole right to install ``name``; yields the directory for what is on its way.

        It keeps what an earlier attempt has left. Waits while another process has the right,
        and tells so. Raises StorageError.
        """
        self.directory_of(name)
        work = self.directory / _WORK
        with storage_errors("make", work):
            work.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(work / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            # The kernel gives the lock back when its holder dies, however it dies; the file
            # stays, since deleting it would let two processes lock two files of one name.
            with storage_errors("lock", work):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    watcher.note(f"Another process is installing {name}; waiting for it.")
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            directory = work / name
            with storage_errors("make", directory):
                directory.mkdir(exist_ok=True)
                _restore(directory / _REPLACED, self.directory / name)
            # A deletion that was cut short left half a model, which must not be brought back
            # when the one in its place is removed.
            for left in (_REPLACED, _REMOVED):
                shutil.rmtree(directory / left, ignore_errors=True)
            yield directory
            # What is not empty is what a later attempt goes on with.
            with suppress(OSError):
                directory.rmdir()
        finally:
            os.close(descriptor)

    def publish(self, name: str, ready: Path) -> InstalledModel:
        """Make the complete, flushed directory ``ready`` the model ``name``, by one rename.

        The caller holds ``incoming``, below which ``ready`` lies. A model of that name is put
        aside first and deleted afterwards; between the two renames there is none. Processes
        that have it open keep their files. Raises StorageError.
        """
        target = self.directory_of(name)
        aside = ready.with_name(_REPLACED)
        with storage_errors("install", target):
            shutil.rmtree(aside, ignore_errors=True)
            if target.exists():
                target.rename(aside)
            ready.rename(target)
            sync(self.directory)
        shutil.rmtree(ready.parent, ignore_errors=True)
        return self.get(name)

    def remove(self, name: str, watcher: PullWatcher) -> int:
        """Delete an installed model and return how many bytes its files had.

        Also one whose lock file is damaged. Raises NotFound, StorageError.
        """
        directory = self.directory_of(name)
        with self.incoming(name, watcher) as incoming:
            if not (directory / LOCK_FILE).is_file():
                raise self._not_installed(name)
            with storage_errors("remove", directory):
                files = [path for path in directory.rglob("*") if path.is_file()]
                size = sum(path.stat().st_size for path in files if path.name != LOCK_FILE)
                aside = incoming / _REMOVED
                shutil.rmtree(aside, ignore_errors=True)
                # Renamed first: a deletion that is cut short must not leave half a model.
                directory.rename(aside)
                shutil.rmtree(incoming)
        return size

    def _not_installed(self, name: str) -> NotFound:
        known = ", ".join(self.names()) or "none"
        return NotFound(
            f"No model {name!r} is installed in {str(self.directory)!r}; there are: {known}."
        )


def _restore(aside: Path, target: Path) -> None:
    """Bring back a model that was put aside for one that never came. Raises OSError."""
    if aside.exists() and not target.exists():
        aside.rename(target)
        sync(target.parent)
