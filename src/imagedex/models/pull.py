"""Models from a hub or a directory, to a home."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from imagedex.core.errors import Conflict, InvalidRequest, ModelError, NotFound, Unavailable
from imagedex.embedding.clip.lock_file import LockedSource
from imagedex.models.disk import require_space
from imagedex.models.download import download_file, left_to_come
from imagedex.models.installation import install
from imagedex.models.interfaces import ModelHub, PullWatcher
from imagedex.models.known import KNOWN_MODELS
from imagedex.models.records import Half, HubSource, InstalledModel, KnownModel, RemoteFile
from imagedex.models.store import ModelStore
from imagedex.models.wanted_files import wanted_files

_COMMIT = re.compile(r"[0-9a-f]{40}")


def published_model(name: str) -> KnownModel:
    """Return the known model of this name, or that of a repository, given as owner/name.

    Raises NotFound.
    """
    if name in KNOWN_MODELS:
        return KNOWN_MODELS[name]
    owner, slash, repo = name.partition("/")
    if owner and slash and repo and "/" not in repo:
        source = HubSource(repo=name, revision=None)
        return KnownModel(repo, f"as published by {owner}", None, "see its page", (source,))
    raise NotFound(
        f"There is no model {name!r}. Give a repository of a hub as OWNER/NAME, or one of: "
        f"{', '.join(KNOWN_MODELS)}."
    )


def pull_model(
    model: KnownModel,
    *,
    store: ModelStore,
    hub: ModelHub,
    watcher: PullWatcher,
    revisions: Sequence[str] = (),
    force: bool = False,
) -> InstalledModel:
    """Install a published model and return it.

    ``revisions`` replaces those of its sources, one for each. A model that is installed is
    returned as it is, unless that was from other revisions or ``force`` is set. What an earlier
    attempt brought is not brought again, whether that failed or its process died.

    Raises InvalidRequest, Conflict, ModelError, StorageError, and Unavailable, which says how to do
    without a network.
    """
    sources = _with_revisions(model, revisions)
    with store.incoming(model.name, watcher) as incoming:
        installed = None if force else store.find(model.name)
        if installed is None and not force:
            store.require_free(model.name)
        try:
            # Without given revisions any installed one will do: an index may rely on it, so only
            # the operator replaces it.
            if installed is not None:
                _require_same_repos(installed, sources)
            if installed is not None and (not revisions or _is_of(installed, sources, hub)):
                watcher.note(f"{model.name} is installed already, in {str(installed.directory)!r}.")
                return installed
            return _pull(model.name, sources, store, hub, watcher, incoming)
        except Unavailable as error:
            raise Unavailable(f"{error} {_without_network(model, sources, hub)}") from error


def install_directory(
    name: str, directory: Path, *, store: ModelStore, watcher: PullWatcher, force: bool = False
) -> InstalledModel:
    """Install the model whose files lie in ``directory``, in either layout, and return it.

    The files are linked, or copied where links cannot be; ``directory`` stays as it is. Raises
    ModelError when they do not make a model, Conflict when there is one of that name
    and not ``force``, and StorageError.
    """
    if not directory.is_dir():
        raise NotFound(f"There is no directory {str(directory)!r}; check --from-dir.")
    paths = [
        path.relative_to(directory).as_posix()
        for pattern in ("*", "*/*")
        for path in directory.glob(pattern)
        # File managers leave hidden files of their own in folders, and on sticks.
        if path.is_file() and not path.name.startswith(".")
    ]
    wanted = wanted_files(paths, Half.BOTH, where=str(directory))
    with store.incoming(name, watcher) as incoming:
        if not force:
            store.require_free(name)
        files = {path: directory / path for path in wanted}
        return install(store, name, files, (), incoming=incoming)


def _pull(
    name: str,
    sources: tuple[HubSource, ...],
    store: ModelStore,
    hub: ModelHub,
    watcher: PullWatcher,
    incoming: Path,
) -> InstalledModel:
    found: list[tuple[HubSource, str, tuple[RemoteFile, ...]]] = []
    for source in sources:
        commit = hub.resolve(source.repo, source.revision or "main")
        if commit != source.revision:
            _require_no_commit(source, commit)
            watcher.note(f"{source.repo}: {source.revision or 'main'} is commit {commit}.")
        found.append((source, commit, _wanted(hub, source, commit)))
    directory = incoming / "files"
    needed = [(file, directory / file.path) for _, _, files in found for file in files]
    require_space(incoming, sum(left_to_come(file, target) for file, target in needed))
    watcher.begin(sum(file.bytes for file, _ in needed))
    for source, commit, files in found:
        for file in files:
            target = directory / file.path
            download_file(hub, source.repo, commit, file, target, watcher)
    return install(
        store,
        name,
        {file.path: target for file, target in needed},
        tuple(LockedSource(source.repo, commit) for source, commit, _ in found),
        incoming=incoming,
    )


def _wanted(hub: ModelHub, source: HubSource, commit: str) -> tuple[RemoteFile, ...]:
    files = {file.path: file for file in hub.list_files(source.repo, commit)}
    paths = files.keys() - source.without
    wanted = wanted_files(paths, source.half, where=f"{source.repo} at {commit}")
    return tuple(_with_known_digest(files[path], source, commit) for path in wanted)


def _require_no_commit(source: HubSource, found: str) -> None:
    """Raise ModelError when a source that names a commit would be taken at another one."""
    if source.revision is not None and _COMMIT.fullmatch(source.revision):
        raise ModelError(
            f"{source.repo} was asked for commit {source.revision} and answered with {found}. A "
            "commit is one and the same everywhere: do not trust this hub (HF_ENDPOINT)."
        )


def _require_same_repos(installed: InstalledModel, sources: tuple[HubSource, ...]) -> None:
    """Raise Conflict when the model of this name is another one than that which was asked for."""
    there = [source.repo for source in installed.lock.sources]
    # What was installed from a directory may be anything; its owner knows.
    if there and there != [source.repo for source in sources]:
        raise Conflict(
            f"A model {installed.name!r} is installed already, and is another one, from "
            f"{' and '.join(there)}; replace it by --force. An index that was made with it needs "
            "the same files again."
        )


def _with_known_digest(file: RemoteFile, source: HubSource, commit: str) -> RemoteFile:
    """Hold what the hub says of a file against what this register knows of it."""
    known = source.sha256.get(file.path) if commit == source.revision else None
    if known is None:
        return file
    if file.sha256 not in (None, known):
        raise ModelError(
            f"{source.repo} says that {file.path} at {commit} has the SHA-256 {file.sha256}, but "
            f"it had {known} when this version of Imagedex was made. A commit cannot change: do "
            "not trust this hub (HF_ENDPOINT)."
        )
    return replace(file, sha256=known)


def _with_revisions(model: KnownModel, revisions: Sequence[str]) -> tuple[HubSource, ...]:
    if not revisions:
        return model.sources
    if len(revisions) != len(model.sources):
        repos = ", ".join(source.repo for source in model.sources)
        raise InvalidRequest(
            f"{model.name} comes from {repos}: give --revision {len(model.sources)} times, in "
            f"this order, not {len(revisions)} times."
        )
    return tuple(
        source if source.revision == revision else replace(source, revision=revision, sha256={})
        for source, revision in zip(model.sources, revisions, strict=True)
    )


def _is_of(installed: InstalledModel, sources: tuple[HubSource, ...], hub: ModelHub) -> bool:
    """Say whether an installed model is what ``sources`` would give again."""
    there = [(source.repo, source.revision) for source in installed.lock.sources]
    asked = [(source.repo, source.revision or "main") for source in sources]
    # A commit needs no question; a branch can mean the same one still.
    return there == asked or there == [(repo, hub.resolve(repo, name)) for repo, name in asked]


def _without_network(model: KnownModel, sources: tuple[HubSource, ...], hub: ModelHub) -> str:
    places = " and ".join(
        f"{_files_of(source)} of {hub.address(source.repo, source.revision or 'main', '')}"
        for source in sources
    )
    return (
        f"Or do without a network here: on a machine that has one, put {places} into a directory, "
        f"in the same sub-folders; bring it here and run: imagedex models pull {model.name} "
        "--from-dir DIR"
    )


def _files_of(source: HubSource) -> str:
    return {
        Half.BOTH: "config.json and the folders visual and textual (or the .json files and "
        "onnx/vision_model.onnx, onnx/text_model.onnx)",
        Half.IMAGE: "config.json and the folder visual",
        Half.TEXT: "the folder textual",
    }[source.half]
