"""Processes that keep and bring back states of an index until they are killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from imagedex.core.images import FailureReason, FileStamp, ImageFailure
from imagedex.segments import DirectoryIndexFiles, Manifest, SnapshotDirectory, publish_lock
from support.committing import FileTrap

FAILURES = (
    ImageFailure("/ä", FailureReason.TRUNCATED, "It breaks off.", FileStamp(7, 8)),
    ImageFailure("/b\nc", FailureReason.VANISHED, "It is not there."),
)


def keep(folder: Path, name: str = "kept") -> None:
    """Make a snapshot of ``folder/index`` in ``folder/snapshots``."""
    prefix = folder / "index"
    manifest = DirectoryIndexFiles(prefix).current()
    assert manifest is not None
    SnapshotDirectory(folder / "snapshots").create(name, prefix, manifest, FAILURES)


def bring_back(folder: Path, name: str = "kept", *, known_generation: int = 0) -> Manifest:
    """Publish a snapshot again."""
    directory = SnapshotDirectory(folder / "snapshots")
    prefix = folder / "index"
    prefix.mkdir(exist_ok=True)
    with publish_lock(prefix).held():
        return directory.bring_back(directory.get(name), prefix, known_generation=known_generation)


def _die(folder: Path, number: int, act: Callable[[], object]) -> None:
    trap = FileTrap(folder, only_changes=True)
    sys.addaudithook(trap.watch)
    trap.arm(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
    act()


def die_in_keeping(folder: Path, number: int, _reports: Connection) -> None:
    """Make a snapshot, killed before the n-th change of a file unless it ends before."""
    _die(folder, number, lambda: keep(folder))


def die_in_bringing_back(folder: Path, number: int, _reports: Connection) -> None:
    """Bring a snapshot back, killed before the n-th change of a file unless it ends before."""
    _die(folder, number, lambda: bring_back(folder))


def die_in_deleting(folder: Path, number: int, _reports: Connection) -> None:
    """Delete a snapshot, killed before the n-th change of a file unless it ends before."""
    _die(folder, number, lambda: SnapshotDirectory(folder / "snapshots").delete("kept"))
