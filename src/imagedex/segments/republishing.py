"""Publishing a generation whose files are there already: an older one, or one that was mended."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from imagedex.core.errors import LeaseLost, NotFound, StorageError
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
from imagedex.segments.records import FileEntry, Manifest
from imagedex.segments.succession import (
    claim_all,
    claimed_generations,
    may_be_claimed,
    require_last,
    succeed,
)


def republish(
    index_prefix: Path,
    source: Manifest,
    *,
    after: int | None,
    fence: int,
    least_generation: int = 1,
    is_same_line: bool = False,
) -> Manifest:
    """Make a new generation with the content of ``source`` the current one; return it.

    Its number is ``least_generation`` or higher, and higher than every one that has files, so
    that numbers never go back. The caller holds the publish lock and has found the files that
    ``source`` lists intact, and ``fence`` not below that of the current generation. Raises
    LeaseLost when another owner has published, StorageError; then the current generation is what
    it was, or the new one where the storage failed in the last step (see ``succession.succeed``).

    Parameters
    ----------
    after
        The current generation, 0 for none; or None, when that cannot be known since ``CURRENT`` or
        its manifest is damaged.
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
    pointer = Pointer(name, hashlib.sha256(data).hexdigest())
    try:
        with storage_errors("flush", path.parent):
            sync_directory(path.parent)
        if after is None:
            point_at(index_prefix, pointer)
        else:
            require_last(index_prefix, after)
            succeed(index_prefix, pointer, before=after)
    except (StorageError, LeaseLost):
        # Of a line that is damaged it is not known what names it: what stays is swept later.
        if after is not None and not may_be_claimed(index_prefix, name, before=after):
            with suppress(OSError):
                path.unlink()
        raise
    return manifest


def seal(index_prefix: Path, *, fence: int) -> Manifest | None:
    """Publish the current generation once more; see ``IndexFiles.seal``.

    The caller holds the publish lock of its term.
    """
    published = read_published(index_prefix)
    if published is None or published.manifest is None:
        return None
    manifest = published.manifest
    highest = max(manifest.fence, manifest.merge_fence)
    if fence <= highest:
        raise LeaseLost(
            f"Fence {fence} cannot seal {str(index_prefix)!r}: fence {highest} has published "
            f"generation {manifest.generation}; begin again with a higher one."
        )
    return republish(
        index_prefix, manifest, after=published.generation, fence=fence, is_same_line=True
    )


def point_at(index_prefix: Path, pointer: Pointer) -> None:
    """Let ``CURRENT`` name a manifest, whatever it holds, and let the damaged line end there.

    The caller is alone. Raises StorageError; then it is done again from the beginning.
    """
    if pointer.manifest is None:
        raise ValueError("A pointer that names no manifest mends nothing.")
    claim_all(index_prefix, pointer.manifest)
    replace_file(index_prefix / layout.CURRENT, pointer.write_to)


def highest_generation(index_prefix: Path) -> int:
    """Return the highest generation that any file below a prefix names; 0 for none.

    A name that says that a generation has a successor tells of one above it.
    """
    numbers = [
        number
        for name in _names(index_prefix)
        for number in (
            layout.generation_of_manifest(name),
            layout.generation_of_tombstones(name),
        )
        if number is not None
    ]
    return max([*numbers, *(1 + before for before in claimed_generations(index_prefix))], default=0)


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
    listed = {file.name for file in files_of(current.manifest)}

    def place(file: FileEntry, name: str) -> FileEntry:
        # Files that nothing needed may be about to be deleted, by an owner that was replaced while
        # it was at that; it knows nothing of names that are new.
        return file if file.name in listed else _link(index_prefix, file, name)

    again = with_files(chosen, place, fence=fence)
    for folder in (layout.SEGMENTS, layout.TOMBSTONES):
        with storage_errors("flush", index_prefix / folder):
            sync_directory(index_prefix / folder)
    return republish(
        index_prefix, again, after=now, fence=fence, least_generation=known_generation + 1
    )


def with_files(
    manifest: Manifest, place: Callable[[FileEntry, str], FileEntry], *, fence: int
) -> Manifest:
    """Return a manifest of the same content in other files.

    ``place`` is given each file, and the name that the same file has under ``fence``; it returns
    the one to be listed.
    """
    segments = tuple(
        replace(
            entry,
            parquet=place(entry.parquet, layout.parquet_name(entry.number, fence)),
            faiss=None
            if entry.faiss is None
            else place(entry.faiss, layout.faiss_name(entry.number, fence)),
            ivf=None
            if entry.ivf is None
            else replace(
                entry.ivf, file=place(entry.ivf.file, layout.ivf_name(entry.number, fence))
            ),
        )
        for entry in manifest.segments
    )
    tombstones = tuple(
        replace(entry, file=place(entry.file, layout.tombstone_name(entry.generation, fence)))
        for entry in manifest.tombstones
    )
    return replace(manifest, segments=segments, tombstones=tombstones)


def _link(index_prefix: Path, file: FileEntry, name: str) -> FileEntry:
    with storage_errors("link", index_prefix / name):
        os.link(index_prefix / file.name, index_prefix / name)
    return replace(file, name=name)


def _last_other(current: Manifest, kept: Sequence[Manifest]) -> Manifest | None:
    """Return the newest that is not the same but for where its rows lie; ``kept`` falls."""
    newer = current
    for manifest in kept:
        if not newer.only_moves:
            return manifest
        newer = manifest
    return None
