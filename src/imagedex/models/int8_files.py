"""Putting the int8 form of a graph beside it, whole or not at all."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from imagedex.core.errors import Conflict
from imagedex.embedding.clip.files import int8_record_path
from imagedex.embedding.clip.int8_record import Int8Record
from imagedex.embedding.clip.lock_file import LockedFile
from imagedex.embedding.runtimes import describe_graph
from imagedex.models.disk import file_digests, link_or_copy, storage_errors, sync

_WORK = ".quantising-"


@contextmanager
def only_quantiser(directory: Path) -> Iterator[None]:
    """Hold the sole right to quantise the model in ``directory``.

    Raises Conflict while another process has it, and StorageError.
    """
    path = directory / ".quantising.lock"
    with storage_errors("lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with storage_errors("lock", path):
            try:
                # The kernel gives it back when its holder dies, however it dies.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Conflict(
                    f"Another process is quantising the model in {str(directory)!r}; wait for it "
                    "or end it."
                ) from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def work_folder(graph: Path) -> Iterator[Path]:
    """Hold a folder beside ``graph`` in which files are made before they count.

    The caller is the only quantiser of the model, so what others left there, who died, is
    deleted first. Raises StorageError.
    """
    for left in graph.parent.glob(f"{_WORK}*/"):
        shutil.rmtree(left, ignore_errors=True)
    work = graph.with_name(f"{_WORK}{secrets.token_hex(6)}")
    with storage_errors("make", work):
        work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def link_graph(graph: Path, folder: Path) -> Path:
    """Make ``graph``, with the files of its weights, appear in ``folder``; return it there.

    Raises ModelError, StorageError.
    """
    for file in (graph, *describe_graph(graph).weight_files):
        link_or_copy(file, folder / file.relative_to(graph.parent))
    return folder / graph.name


def new_name(graph: Path, suffix: str) -> str:
    """Return a name for an int8 form of ``graph`` that no earlier one has had."""
    return f"{int8_record_path(graph).stem}-{secrets.token_hex(4)}{suffix}"


def describe_files(files: Sequence[Path]) -> tuple[LockedFile, ...]:
    """Flush complete files of one folder, and return what they are. Raises StorageError."""
    described: list[LockedFile] = []
    for file in files:
        with storage_errors("write", file):
            sync(file)
            modified = file.stat().st_mtime_ns
        digests = file_digests(file)
        described.append(LockedFile(file.name, digests.bytes, digests.sha256, modified))
    return tuple(described)


def publish_int8(graph: Path, made_in: Path, record: Int8Record) -> None:
    """Make flushed files of the folder ``made_in`` the int8 form of ``graph``, by one rename.

    ``record`` names them. A process that reads the old record meanwhile gets the old files, if
    it opens them before they are deleted. Raises StorageError, and the old form is kept then.
    """
    path = int8_record_path(graph)
    temporary = made_in / path.name
    with storage_errors("write", path):
        temporary.write_text(record.to_json(), "utf-8")
        sync(temporary)
        for file in record.files:
            (made_in / file.path).rename(graph.with_name(file.path))
        # The files have their names for good before the record does that leads to them.
        sync(graph.parent)
        temporary.replace(path)
        sync(graph.parent)
    kept = {file.path for file in record.files}
    for old in graph.parent.glob(f"{path.stem}-*"):
        if old.name not in kept:
            # One that stays takes room, no more; the next quantisation tries again.
            with suppress(OSError):
                old.unlink()
