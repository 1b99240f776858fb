"""Publishing a generation whose files are there already: an older one, or one that was mended."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from imagedex.core.errors import NotFound, StorageError
from imagedex.core.times import utc_now
from imagedex.segments import layout
from imagedex.segments.durable import (
    create_file,
    make_directory,
    replace_file,
    storage_errors,
    sync_directory,
)
from imagedex.segments.examination import files_of, manifests_present
from imagedex.segments.integrity import require_intact
from imagedex.segments.manifest_json import encode_manifest
from imagedex.segments.pointer import Pointer
from imagedex.segments.published import read_published
from imagedex.segments.records import Manifest


def republish(
    index_prefix: Path,
    source: Manifest,
    *,
    fence: int,
    least_generation: int = 1,
    is_same_line: bool = False,
) -> Manifest:
    """Make a new generation with the content of ``source`` the current one; return it.

    Its number is ``least_generation`` or higher, and higher than every one that has files, so
    that numbers never go back. The caller holds the publish lock and has found the files that
    ``source`` lists intact, and ``fence`` not below that of the current generation. ``CURRENT``
    may be damaged or missing. Raises StorageError; then ``CURRENT`` is what it was.

    Parameters
    ----------
    is_same_line
        Each row is where it was in the current generation, so that catalogs need not be
        filled anew.
    """
    make_directory(index_prefix / layout.MANIFESTS)
    generation = max(least_generation, source.generation + 1, 1 + highest_generation(index_prefix))
    now = utc_now()
    manifest = replace(
        source,
        generation=generation,
        fence=fence,
        merge_fence=fence,
        only_moves=is_same_line,
        created_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
        next_segment=max(source.next_segment, 1 + _highest_segment(index_prefix)),
        base_generation=source.base_generation if is_same_line else generation,
    )
    data = encode_manifest(manifest)
    name = layout.manifest_name(generation, fence)
    path = index_prefix / name
    create_file(path, lambda file: file.write(data))
    try:
        with storage_errors("flush", path.parent):
            sync_directory(path.parent)
        point_at(index_prefix, Pointer(name, hashlib.sha256(data).hexdigest()))
    except StorageError:
        with suppress(OSError):  # Nothing names it; what stays is swept later.
            path.unlink()
        raise
    return manifest


def point_at(index_prefix: Path, pointer: Pointer) -> None:
    """Replace ``CURRENT``, whatever it holds. Raises StorageError; then it is what it was."""
    path = index_prefix / layout.CURRENT
    with storage_errors("read", path):
        before = path.read_bytes() if path.exists() else None
    try:
        replace_file(path, pointer.write_to)
    except StorageError:
        # It may have been replaced, and only flushing its directory have failed.
        if path.exists() and path.read_bytes() != before:
            if before is None:
                path.unlink()
            else:
                replace_file(path, lambda file: file.write(before))
        raise


def highest_generation(index_prefix: Path) -> int:
    """Return the highest generation that any file below a prefix names; 0 for none."""
    return max(
        (
            number
            for name in _names(index_prefix)
            for number in (
                layout.generation_of_manifest(name),
                layout.generation_of_tombstones(name),
            )
            if number is not None
        ),
        default=0,
    )


def highest_fence(index_prefix: Path) -> int:
    """Return the highest fence that the name of any file of a generation tells; 0 for none."""
    return max((layout.fence_of(name) or 0 for name in _names(index_prefix)), default=0)


def _highest_segment(index_prefix: Path) -> int:
    numbers = map(layout.number_of_segment, _names(index_prefix))
    return max((number for number in numbers if number is not None), default=0)


def _names(index_prefix: Path) -> Iterator[str]:
    for folder in (layout.MANIFESTS, layout.SEGMENTS, layout.TOMBSTONES):
        directory = index_prefix / folder
        with storage_errors("list", directory):
            names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
        yield from (f"{folder}/{name}" for name in names)


def roll_back(index_prefix: Path, *, generation: int | None, known_generation: int) -> Manifest:
    """Publish an earlier generation, all of whose files are there, as a new one; return it.

    The caller holds the publish lock. Raises NotFound when that generation is not kept any more,
    or when there is no earlier one, CorruptIndex when a file of it is damaged, StorageError.

    Parameters
    ----------
    generation
        Which one; None for the last that held other images than the current one.
    known_generation
        The newest that the catalog knows.
    """
    current = read_published(index_prefix)
    if current is None or current.manifest is None:
        raise NotFound(f"There is no index at {str(index_prefix)!r}.")
    now = current.manifest.generation
    kept = [
        manifest
        for _, manifest in manifests_present(index_prefix)
        if isinstance(manifest, Manifest) and manifest.generation < now
    ]
    if generation is None:
        chosen = _last_other(current.manifest, kept)
    else:
        chosen = next((m for m in kept if m.generation == generation), None)
    if chosen is None:
        there = ", ".join(str(manifest.generation) for manifest in kept) or "none"
        wanted = "An earlier generation" if generation is None else f"Generation {generation}"
        raise NotFound(
            f"{wanted} is not kept beside the current one, {now} (kept: {there}); restore a "
            "snapshot instead, see imagedex snapshot list."
        )
    for file in files_of(chosen):
        require_intact(index_prefix, file)
    fence = 1 + max(current.manifest.fence, highest_fence(index_prefix))
    return republish(index_prefix, chosen, fence=fence, least_generation=known_generation + 1)


def _last_other(current: Manifest, kept: Sequence[Manifest]) -> Manifest | None:
    """Return the newest that is not the same but for where its rows lie; ``kept`` falls."""
    newer = current
    for manifest in kept:
        if not newer.only_moves:
            return manifest
        newer = manifest
    return None
