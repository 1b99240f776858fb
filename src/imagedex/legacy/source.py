"""An old index as a job meets it: the pair, its rows by image path, and the old state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagedex.core.errors import InvalidRequest, StorageError
from imagedex.core.images import FileStamp
from imagedex.ingest import ImageRoots
from imagedex.legacy.pair import LegacyPair, files_of
from imagedex.legacy.placing import PlacedRows, place_rows
from imagedex.legacy.records import ImportOptions, SourceStamp
from imagedex.legacy.state_file import OldImage, OldState, read_state
from imagedex.segments.durable import storage_errors


@dataclass(frozen=True, slots=True)
class LegacySource:
    """What an import reads."""

    pair: LegacyPair
    placed: PlacedRows
    state: OldState | None
    old_images: dict[str, OldImage]  # By image path; empty without a state file.

    @classmethod
    def open(cls, options: ImportOptions, image_roots: ImageRoots) -> LegacySource:
        """Open all files. Raises InvalidRequest, StorageError."""
        pair = LegacyPair.open(
            options.prefix,
            path_column=options.path_column,
            vector_column=options.vector_column,
        )
        placed = place_rows(pair.paths(), image_roots, root=options.root)
        if options.state is None:
            return cls(pair, placed, None, {})
        state = read_state(options.state)
        by_path = place_rows(list(state.images), image_roots, root=options.root).row_of
        values = list(state.images.values())
        old_images = {path: values[number] for path, number in by_path.items()}
        _require_same_rows(options.state, old_images, placed)
        return cls(pair, placed, state, old_images)

    def is_of_file(self, image_path: str, stamp: FileStamp) -> bool:
        """Say whether a vector is that of the file as it is now, as far as anything tells."""
        old = self.old_images.get(image_path)
        return old is None or old.is_of(stamp)


def stamps_of(options: ImportOptions) -> tuple[SourceStamp, ...]:
    """Return the files of an old index with their present size and mtime. Raises StorageError."""
    files = [*files_of(options.prefix), *([options.state] if options.state else [])]
    stamps = []
    for file in files:
        with storage_errors("read", file):
            try:
                status = file.stat()
            except FileNotFoundError:
                continue  # One of the pair may be missing; what is needed is found out elsewhere.
        stamps.append(SourceStamp(str(file), status.st_size, status.st_mtime_ns))
    return tuple(stamps)


def require_roots_present(paths: PlacedRows, image_roots: ImageRoots) -> None:
    """Raise StorageError when an image root is empty or missing: then its share is not mounted."""
    for root in sorted({image_roots.root_of(path) for path in paths.row_of}):
        if not image_roots.is_present(root):
            raise StorageError(
                f"The image root {root!r} is empty or missing, so that the images of the old index "
                "cannot be read; mount its share and try again."
            )


def _require_same_rows(file: Path, old_images: dict[str, OldImage], placed: PlacedRows) -> None:
    for path, old in old_images.items():
        row = placed.row_of.get(path)
        if row is not None and old.index_position is not None and old.index_position != row:
            raise InvalidRequest(
                f"The state file {str(file)!r} has {path!r} in row {old.index_position} but the "
                f"Parquet file in row {row}; they do not belong together. Restore all files from "
                "one copy, or leave --state out."
            )
