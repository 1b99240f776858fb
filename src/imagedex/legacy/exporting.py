"""An index written back as the pair of files, and the state file, of the old scripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import Conflict, InvalidRequest
from imagedex.core.images import ImageFacts, RowLocation
from imagedex.legacy._faiss import write_flat
from imagedex.legacy._parquet import PATH_NAMES, VECTOR_NAMES, write_table
from imagedex.legacy.pair import files_of
from imagedex.legacy.placing import written_path
from imagedex.legacy.state_file import WrittenImage, encode_state
from imagedex.segments import IndexFiles, Manifest
from imagedex.segments.durable import storage_errors, sync_directory, temporary_file

_STATE_MODE = 0o600


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Where an old index is written, and how. All paths are absolute."""

    prefix: Path  # Of ``PREFIX.parquet``, ``PREFIX.faiss`` and ``PREFIX.state.json``.
    root: Path | None = None  # Paths below it are written relative to it.
    path_column: str = PATH_NAMES[0]
    vector_column: str = VECTOR_NAMES[0]
    replaces: bool = False  # Files that are there already.


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written."""

    images: int
    dim: int
    model: str
    generation: int
    files: tuple[str, ...]


def export_index(files: IndexFiles, options: ExportOptions) -> ExportReport:
    """Write the current generation of an index: images that count, in the order of its rows.

    All files are complete on the disk before the first of them gets its name. Raises
    InvalidRequest when there is nothing to write, Conflict when files are there already,
    CorruptIndex, StorageError.
    """
    manifest = files.current()
    if manifest is None or manifest.images == 0:
        raise InvalidRequest(
            f"There is no image in the index at {str(files.index_prefix)!r}, so nothing to export; "
            "check --index-prefix."
        )
    if options.path_column == options.vector_column:
        raise InvalidRequest(
            f"Both columns would be called {options.path_column!r}; give them different names."
        )
    parquet, faiss = files_of(options.prefix)
    targets = (parquet, faiss, state_file_of(options.prefix))
    if not options.replaces:
        _require_free(targets)
    rows = _LiveRows(files, manifest, options.root)
    content = (
        lambda file: write_table(
            file,
            ((paths, vectors) for paths, _, vectors in rows.blocks()),
            path_column=options.path_column,
            vector_column=options.vector_column,
        ),
        lambda file: write_flat(
            file, (vectors for _, _, vectors in rows.blocks()), dim=manifest.dim
        ),
        lambda file: file.write(encode_state(rows.images(), indexed_at=manifest.created_at)),
    )
    modes = (0o666, 0o666, _STATE_MODE)
    with storage_errors("write", options.prefix), ExitStack() as held:
        written = [
            held.enter_context(temporary_file(target, write, mode=mode))[0]
            for target, write, mode in zip(targets, content, modes, strict=True)
        ]
        # Removed first: a kill between two renames must not leave vectors beside paths that are
        # not theirs. Without its Faiss file the pair is found incomplete.
        for target in targets[1:]:
            target.unlink(missing_ok=True)
        sync_directory(parquet.parent)
        for temporary, target in zip(written, targets, strict=True):
            temporary.replace(target)
        sync_directory(parquet.parent)
    return ExportReport(
        images=manifest.images,
        dim=manifest.dim,
        model=manifest.model_name,
        generation=manifest.generation,
        files=tuple(map(str, targets)),
    )


def state_file_of(prefix: Path) -> Path:
    """Return where the state file of an exported index lies."""
    return prefix.with_name(f"{prefix.name}.state.json")


class _LiveRows:
    """The rows of a generation that count, read anew by each call."""

    def __init__(self, files: IndexFiles, manifest: Manifest, root: Path | None) -> None:
        self._files = files
        self._manifest = manifest
        self._root = root
        self._gone = files.read_tombstones(manifest.tombstones)

    def blocks(self) -> Iterator[tuple[list[str], list[ImageFacts], NDArray[np.float32]]]:
        """Yield paths as they are written, facts and vectors of some rows at a time."""
        for segment in self._manifest.segments:
            for block in self._files.read_images(segment):
                live = [
                    place
                    for place in range(len(block.facts))
                    if RowLocation(segment.number, block.first_row + place) not in self._gone
                ]
                facts = [block.facts[place] for place in live]
                paths = [written_path(one.image_path, self._root) for one in facts]
                yield paths, facts, block.vectors[live]

    def images(self) -> Iterator[WrittenImage]:
        """Yield what a state file says of each row."""
        position = count()
        for segment in self._manifest.segments:
            for location, facts in self._files.read_facts(segment):
                if location not in self._gone:
                    path = written_path(facts.image_path, self._root)
                    yield WrittenImage(path, facts.stamp, next(position))


def _require_free(targets: tuple[Path, ...]) -> None:
    for target in targets:
        with storage_errors("look for", target):
            is_taken = target.exists() or target.is_symlink()
        if is_taken:
            raise Conflict(
                f"{str(target)!r} is there already; name another place, or replace all three files "
                "by --replace."
            )
