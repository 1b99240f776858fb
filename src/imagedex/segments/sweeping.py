"""Deleting what no generation needs."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import structlog

from imagedex.core.errors import CorruptIndex
from imagedex.segments import layout
from imagedex.segments.durable import storage_errors
from imagedex.segments.manifest_json import decode_manifest
from imagedex.segments.records import Manifest

KEPT_GENERATIONS = 3

_log = structlog.get_logger(__name__)


def sweep(index_prefix: Path, current: Manifest | None, keep_jobs: Collection[str] | None) -> int:
    """Delete what is not needed and return the number of files; see ``IndexFiles.sweep``.

    The last three generations stay, so that a reader which is opening one finds its files.
    Manifests newer than the current one (left by a crash) stay too: their numbers remain
    taken until a commit has gone past them. The caller holds the publish lock, so that no
    commit is under way. Raises StorageError when something could not be deleted, after all else.
    """
    kept = _kept_names(index_prefix, current)
    deleted = 0
    failed: OSError | None = None
    with storage_errors("sweep", index_prefix):
        for name in sweepable_names(index_prefix):
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
    return deleted


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _kept_names(index_prefix: Path, current: Manifest | None) -> set[str]:
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
    return kept


def _read_older(index_prefix: Path, name: str) -> Manifest | None:
    path = index_prefix / name
    with storage_errors("read", path):
        data = path.read_bytes()
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
