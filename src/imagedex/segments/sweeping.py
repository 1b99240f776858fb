"""Deleting what no generation needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import structlog

from imagedex.core.errors import CorruptIndex
from imagedex.segments import layout
from imagedex.segments.durable import storage_errors
from imagedex.segments.manifest_json import decode_manifest
from imagedex.segments.records import Manifest
from imagedex.segments.succession import claimed_generations, generations_present

KEPT_GENERATIONS = 3

_log = structlog.get_logger(__name__)


def sweep(
    index_prefix: Path,
    current: Callable[[], Manifest | None],
    keep_jobs: Collection[str] | None,
    *,
    fence: int | None,
) -> int:
    """Delete what is not needed and return the number of files; see ``IndexFiles.sweep``.

    The last three generations stay, so that a reader which is opening one finds its files.
    Manifests newer than the current one (left by a crash) stay too: their numbers remain
    taken until a commit has gone past them. The caller holds the publish lock, so that no
    commit of its term is under way; ``current`` returns the current generation's manifest. Raises
    StorageError when something could not be deleted, after all else.
    """
    # A sweeper may be frozen at any point while another owner takes over and publishes. So names
    # are listed before it is known what counts: what was written since is not among them. And names
    # of a higher fence are the other's, who may be about to publish them.
    with storage_errors("list", index_prefix):
        names = [name for name in sweepable_names(index_prefix) if _is_reached(name, fence)]
    manifest = current()
    kept, oldest = _kept(index_prefix, manifest)
    deleted = 0
    failed: OSError | None = None
    with storage_errors("sweep", index_prefix):
        for name in names:
            if name in kept or _is_of_kept_job(name, keep_jobs):
                continue
            try:
                _delete(index_prefix / name)
                deleted += 1
            except OSError as error:
                # NFS keeps a directory for as long as a file that was in it is open; what comes
                # after it is to go nevertheless.
                failed = failed or error
        _remove_empty_jobs(index_prefix / layout.PARTS)
        if failed is not None:
            raise failed
        if manifest is not None:
            deleted += _sweep_successors(index_prefix, manifest.generation, oldest)
    return deleted


def _is_reached(name: str, fence: int | None) -> bool:
    return fence is None or (layout.fence_of(name) or 0) <= fence


def _sweep_successors(index_prefix: Path, current: int, oldest: int) -> int:
    """Forget what followed generations that are kept no longer; return how many.

    A name is free again afterwards. An owner that was frozen before it claimed the name must then
    find that its manifest is gone: so nothing is forgotten while there is a manifest that may
    not be published. They are listed after the current generation was read, and whoever writes
    one later looks at that first (see ``succession``).
    """
    claimed = claimed_generations(index_prefix)
    present = generations_present(index_prefix)
    if len(set(present)) < len(present) or not {*present} <= {*claimed, current}:
        return 0
    # The last of them names the oldest generation that is kept.
    forgotten = sorted(number for number in claimed if number < oldest)[:-1]
    for number in forgotten:
        (index_prefix / layout.successor_name(number)).unlink(missing_ok=True)
    return len(forgotten)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _kept(index_prefix: Path, current: Manifest | None) -> tuple[set[str], int]:
    """Return the names of files that stay, and the oldest generation that does."""
    published = current.generation if current else 0
    older: list[tuple[int, str]] = []
    kept: set[str] = set()
    with storage_errors("list", index_prefix):
        for name in _files_in(index_prefix, layout.MANIFESTS):
            generation = layout.generation_of_manifest(name)
            if generation is None:
                continue
            if generation >= published:
                kept.add(name)
            else:
                older.append((generation, name))
    manifests = [current] if current else []
    for _, name in sorted(older, reverse=True)[: KEPT_GENERATIONS - 1]:
        manifest = _read_older(index_prefix, name)
        if manifest is not None:
            kept.add(name)
            manifests.append(manifest)
    for manifest in manifests:
        for segment in manifest.segments:
            kept.update(file.name for file in segment.files)
        kept.update(entry.file.name for entry in manifest.tombstones)
    return kept, min((manifest.generation for manifest in manifests), default=0)


def _read_older(index_prefix: Path, name: str) -> Manifest | None:
    path = index_prefix / name
    with storage_errors("read", path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None  # Another owner sweeps too.
    try:
        return decode_manifest(data, name)
    except CorruptIndex as error:
        # No reader can open it, so it keeps nothing; the current generation is intact.
        _log.warning("older_manifest_dropped", manifest=name, reason=str(error))
        return None


def sweepable_names(index_prefix: Path) -> Iterator[str]:
    """Yield the names of all files that may be swept; the unknown ones are left alone."""
    for path in index_prefix.glob(f"{layout.CURRENT}.*{layout.TEMPORARY_SUFFIX}"):
        yield path.name
    for folder in (layout.MANIFESTS, layout.SEGMENTS, layout.TOMBSTONES):
        yield from filter(_is_ours, _files_in(index_prefix, folder))
    parts = index_prefix / layout.PARTS
    if parts.is_dir():
        for job in parts.iterdir():
            yield from filter(_is_ours, _files_in(index_prefix, f"{layout.PARTS}/{job.name}"))


def _files_in(index_prefix: Path, folder: str) -> list[str]:
    directory = index_prefix / folder
    return [f"{folder}/{path.name}" for path in directory.iterdir()] if directory.is_dir() else []


def _is_ours(name: str) -> bool:
    return (
        name.endswith(layout.TEMPORARY_SUFFIX)
        or layout.generation_of_manifest(name) is not None
        or layout.number_of_segment(name) is not None
        or layout.generation_of_tombstones(name) is not None
        or layout.job_of_part(name) is not None
        or layout.is_staging(name)
    )


def _is_of_kept_job(name: str, keep_jobs: Collection[str] | None) -> bool:
    # Its temporary files stay too: workers may be writing them.
    folders = name.split("/")
    return folders[0] == layout.PARTS and (keep_jobs is None or folders[1] in keep_jobs)


def _remove_empty_jobs(parts: Path) -> None:
    if not parts.is_dir():
        return
    for job in parts.iterdir():
        if job.is_dir() and not any(job.iterdir()):
            try:
                job.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                # A worker has begun a part of it in this moment.
                if not any(job.iterdir()):
                    raise
