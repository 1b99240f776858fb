"""The last steps before a model is there: text axis, proof, lock file, one rename."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from imagedex.embedding.clip import ClipModel
from imagedex.embedding.clip.files import find_model_files
from imagedex.embedding.clip.lock_file import (
    LOCK_FILE,
    LockedFile,
    LockedSource,
    LockedTextAxis,
    LockFile,
)
from imagedex.embedding.clip.tokenizer import ClipTokenizer
from imagedex.models.disk import file_digests, link_or_copy, storage_errors, sync_tree
from imagedex.models.records import InstalledModel
from imagedex.models.store import ModelStore
from imagedex.models.text_axis import free_text_axis


def install(
    store: ModelStore,
    name: str,
    files: Mapping[str, Path],
    sources: tuple[LockedSource, ...],
    *,
    incoming: Path,
) -> InstalledModel:
    """Make a model of complete files, by their paths within it, and publish it.

    The files stay as they are: they are linked, or copied where links cannot be. The caller
    holds ``incoming`` of the store. Raises ModelError when they do not make a model, and
    StorageError.
    """
    ready = incoming / "ready"
    with storage_errors("clear", ready):
        # What an attempt that died here had made is made again from the complete files.
        if ready.exists():
            shutil.rmtree(ready)
        ready.mkdir()
    for path, source in files.items():
        link_or_copy(source, ready / path)
    text_axis = _free_text_axis(ready)
    _prove(ready, name)
    lock = LockFile(
        name=name,
        sources=sources,
        files=tuple(_locked(ready, path) for path in sorted(_relative_files(ready))),
        text_axis=text_axis,
    )
    with storage_errors("write", ready / LOCK_FILE):
        (ready / LOCK_FILE).write_text(lock.to_json(), "utf-8")
    sync_tree(ready)
    return store.publish(name, ready)


def _prove(directory: Path, name: str) -> None:
    """Raise ModelError when a model could not be used, before an index or a query finds out."""
    model = ClipModel.open(directory, name=name)
    ClipTokenizer(model.files.tokenizer, model.specification.text)


def _free_text_axis(directory: Path) -> LockedTextAxis:
    graph = find_model_files(directory).text_graph
    output = graph.with_name(f"{graph.stem}.rewritten{graph.suffix}")
    outcome = free_text_axis(graph, output)
    with storage_errors("write", graph):
        if outcome.is_rewritten:
            # By its name: the old graph is perhaps the same file as the one that was given.
            output.replace(graph)
    return LockedTextAxis(is_dynamic=outcome.is_dynamic, reason=outcome.reason)


def _relative_files(directory: Path) -> list[str]:
    paths = (path for path in directory.rglob("*") if path.is_file())
    return [path.relative_to(directory).as_posix() for path in paths]


def _locked(directory: Path, path: str) -> LockedFile:
    digests = file_digests(directory / path)
    modified = (directory / path).stat().st_mtime_ns
    return LockedFile(path, digests.bytes, digests.sha256, modified)
