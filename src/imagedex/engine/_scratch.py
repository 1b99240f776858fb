"""A directory of the engine's own for what Dask insists on writing."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "imagedex-engine-"
_LOCK = "lock"


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Give an empty directory (mode 0700, on the local disk) that is removed in the end.

    Directories that killed processes of this user left behind are removed as well: a lock tells
    them from those in use, and the kernel lets go of it however a process ends.
    """
    base = Path(tempfile.gettempdir())
    _remove_leftovers(base)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    with open(directory / _LOCK, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _remove_leftovers(base: Path) -> None:
    for directory in base.glob(f"{_PREFIX}*"):
        try:
            # Somebody else may lay out names of this form in a shared directory; a link or a
            # directory of another user is never followed.
            if directory.is_symlink() or directory.stat().st_uid != os.getuid():
                continue
            with open(directory / _LOCK, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
        except OSError:
            # In use, just being made, or gone in this moment: not ours to remove.
            continue
