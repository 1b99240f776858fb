"""Processes that publish generations until they are killed or their storage fails.

What is published follows from the number of the step alone, so that a parent can tell from the
files which step was the last and what must be there.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import LeaseLost, StorageError
from imagedex.segments import Commit, DirectoryIndexFiles, Manifest, Merge
from imagedex.testing.index_files import (
    assert_holds,
    live_locations,
    make_commit,
    make_part,
    unit_vectors,
)
from support.structures import files_with_faiss

# Starts a target in a process of its own, with the arguments and a connection to report on.
StartProcess = Callable[..., tuple[ForkServerProcess, Connection]]

DIM = 8
_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir"}
_FILE_EVENTS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.listdir", "os.scandir"}


def step_of(manifest: Manifest | None) -> int:
    """Return the number of the step that published this generation."""
    return int(manifest.segments[-1].job_id.removeprefix("step-")) if manifest else 0


def images_after(step: int) -> dict[str, NDArray[np.float32]]:
    """Return what the index holds when so many steps were done."""
    images: dict[str, NDArray[np.float32]] = {}
    for number in range(1, step + 1):
        added, gone = _changes_of(number)
        images.update(added)
        for path in gone:
            del images[path]
    return images


def commit_step(files: DirectoryIndexFiles, step: int, *, fence: int = 1) -> Manifest:
    """Publish the changes of one step."""
    return files.commit(_prepare_step(files, step, fence=fence))


def commit_steps(files: DirectoryIndexFiles, count: int) -> None:
    """Publish the changes of the first steps."""
    for step in range(1, count + 1):
        commit_step(files, step)


def commit_until_killed(index_prefix: Path, reports: Connection) -> None:
    """Do one step after another, reporting the number of each that was acknowledged."""
    files = files_with_faiss(index_prefix)
    step = step_of(files.current())
    reports.send(step)
    while True:
        step += 1
        commit_step(files, step)
        reports.send(step)
        if step % 4 == 0:
            files.sweep(keep_jobs=[])


def die_at_file_operation(index_prefix: Path, number: int, reports: Connection) -> None:
    """Do the next step and a sweep, killed before the n-th operation on a file below the prefix.

    Reports the step when it was acknowledged, and 0 when all was done without being killed.
    """
    files = files_with_faiss(index_prefix)
    step = step_of(files.current()) + 1
    commit = _prepare_step(files, step)
    trap = FileTrap(index_prefix)
    sys.addaudithook(trap.watch)
    trap.arm(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
    files.commit(commit)
    reports.send(step)
    files.sweep(keep_jobs=[])
    reports.send(0)


def freeze_at_each_file_operation(template: Path, scratch: Path, reports: Connection) -> None:
    """Do a step and a sweep under fence 1, frozen before the n-th operation on a file, for each n.

    Each time on a copy of an index, ``scratch/n``. Reports its process id first, and then, each
    time that somebody has let it go on, what came of it: the step, or 0 when it could not publish;
    and whether it was frozen at all, after which it ends.
    """
    trap = FileTrap(scratch)
    sys.addaudithook(trap.watch)
    reports.send(os.getpid())
    was_frozen = True
    number = 0
    while was_frozen:
        number += 1
        shutil.copytree(template, scratch / str(number))
        files = files_with_faiss(scratch / str(number))
        step = step_of(files.current()) + 1
        commit = _prepare_step(files, step)
        trap.arm(number, lambda: os.kill(os.getpid(), signal.SIGSTOP))
        try:
            files.commit(commit)
            files.sweep(keep_jobs=["part"], fence=1)
        except (LeaseLost, StorageError):
            step = 0  # A storage error, where the new owner has swept what was half written.
        was_frozen = trap.disarm()
        reports.send((step, was_frozen))


def fail_at_each_file_operation(template: Path, scratch: Path, reports: Connection) -> None:
    """Do one step for each n, on a copy of an index, while the n-th file operation fails.

    Each time the old generation must stand, or the new one when the commit came through, and
    the step must succeed afterwards. Reports the number of operations that were tried.
    """
    trap = FileTrap(scratch)
    sys.addaudithook(trap.watch)
    has_failed = True
    number = 0
    while has_failed:
        number += 1
        index_prefix = scratch / str(number)
        shutil.copytree(template, index_prefix)
        files = files_with_faiss(index_prefix)
        before = files.current()
        step = step_of(before) + 1
        commit = _prepare_step(files, step)
        trap.arm(number, _fail)
        try:
            files.commit(commit)
        except StorageError:
            has_failed = trap.disarm()
            assert has_failed
            assert files.current() == before
            assert_holds(files, images_after(step - 1), dim=DIM)
            commit_step(files, step)
        else:
            has_failed = trap.disarm()
        assert_holds(files, images_after(step), dim=DIM)
    reports.send(number)


def merge_all(files: DirectoryIndexFiles, *, fence: int = 1) -> Manifest:
    """Make one segment of all that the current generation has."""
    current = files.current()
    assert current is not None
    numbers = frozenset(segment.number for segment in current.segments)
    return files.merge(Merge(fence, f"step-{step_of(current)}", numbers))


def die_while_merging(index_prefix: Path, number: int, reports: Connection) -> None:
    """Merge and sweep, killed before the n-th operation on a file below the prefix.

    Reports the new generation when it was acknowledged, and 0 when all was done unkilled.
    """
    files = files_with_faiss(index_prefix)
    trap = FileTrap(index_prefix)
    sys.addaudithook(trap.watch)
    trap.arm(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
    reports.send(merge_all(files).generation)
    files.sweep(keep_jobs=[])
    reports.send(0)


def fail_while_merging(template: Path, scratch: Path, reports: Connection) -> None:
    """Merge once for each n, on a copy of an index, while the n-th file operation fails.

    Each time the old generation must stand, or the new one when the merge came through, and
    leave nothing behind. Reports the number of operations that were tried.
    """
    trap = FileTrap(scratch)
    sys.addaudithook(trap.watch)
    has_failed = True
    number = 0
    while has_failed:
        number += 1
        index_prefix = scratch / str(number)
        shutil.copytree(template, index_prefix)
        files = files_with_faiss(index_prefix)
        before = files.current()
        names = {path.name for path in (index_prefix / "segments").iterdir()}
        trap.arm(number, _fail)
        try:
            merge_all(files)
        except StorageError:
            has_failed = trap.disarm()
            assert has_failed
            assert files.current() == before
            left = {path.name for path in (index_prefix / "segments").iterdir()} - names
            assert not left, left
            merge_all(files)
        else:
            has_failed = trap.disarm()
        merged = files.current()
        assert merged is not None
        assert len(merged.segments) == 1
        assert_holds(files, images_after(step_of(merged)), dim=DIM)
    reports.send(number)


def commit_with_file_size_limits(index_prefix: Path, reports: Connection) -> None:
    """Do steps under a rising limit of the file size, which fails as a full disk does.

    Reports the number of steps that failed, after each of which the old generation stood.
    """
    files = files_with_faiss(index_prefix)
    failures = 0
    for limit in range(0, 6000, 250):
        before = files.current()
        step = step_of(before) + 1
        commit = _prepare_step(files, step)
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            files.commit(commit)
        except StorageError as error:
            failures += 1
            if "raise the file size limit" not in str(error) or files.current() != before:
                raise
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        left = [path.name for path in index_prefix.rglob("*.tmp")]
        assert not left, left
    reports.send(failures)


def add_images_beside_others(index_prefix: Path, name: str, count: int) -> None:
    """Bring in so many images, one a commit, while other processes do the same."""
    files = files_with_faiss(index_prefix)
    for number in range(count):
        image = {f"/{name}/{number}": unit_vectors(1, DIM, seed=number)[0]}
        part = files.write_part(name, number, 1, make_part(image, dim=DIM))
        while True:
            try:
                files.commit(make_commit(files.current(), dim=DIM, parts=[part]))
                break
            except LeaseLost:
                continue  # Another has published since; begin from there.


def _changes_of(step: int) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """Return what a step adds or changes, and what it removes."""
    vectors = unit_vectors(4, DIM, seed=step)
    changed = {f"/{step}/{i}": vectors[i] for i in range(3)}
    if step > 1:
        changed[f"/{step - 1}/0"] = vectors[3]
    return changed, [f"/{step - 2}/1"] if step > 2 else []


def _prepare_step(files: DirectoryIndexFiles, step: int, *, fence: int = 1) -> Commit:
    added, gone = _changes_of(step)
    current = files.current()
    where = live_locations(files, current)
    part = files.write_part("part", step, fence, make_part(added, dim=DIM))
    return make_commit(
        current,
        dim=DIM,
        parts=[part],
        removed=[where[path] for path in (*added, *gone) if path in where],
        fence=fence,
        job_id=f"step-{step}",
    )


def _fail() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


class FileTrap:
    """Does something before the n-th operation on a file below a directory (PEP 578)."""

    def __init__(self, directory: Path, *, only_changes: bool = False) -> None:
        self._directory = str(directory)
        self._only_changes = only_changes  # Whoever dies between two reads leaves the same files.
        self._left = 0
        self._action = _fail

    def arm(self, number: int, action: Callable[[], None]) -> None:
        self._left, self._action = number, action

    def disarm(self) -> bool:
        """Return whether it was sprung."""
        sprung, self._left = self._left <= 0, 0
        return sprung

    def watch(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in _FILE_EVENTS or not str(arguments[0]).startswith(self._directory):
            return
        is_change = event in _CHANGES or (event == "open" and arguments[1] == "xb")
        if is_change or not self._only_changes:
            self._left -= 1
            if self._left == 0:
                self._action()
