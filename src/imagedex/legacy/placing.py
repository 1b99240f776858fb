"""Which row of an old index belongs to which image path."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagedex.core.errors import InvalidRequest, OutsideImageRoots
from imagedex.core.images import FailureReason, ImageFailure
from imagedex.ingest import ImageRoots


@dataclass(slots=True)
class PlacedRows:
    """The rows of an old index by image path."""

    row_of: dict[str, int] = field(default_factory=dict)  # In rising order of rows.
    failures: list[ImageFailure] = field(default_factory=list)  # Rows that cannot be taken.
    duplicates: int = 0  # Rows whose path comes again in a later row, which counts.


def place_rows(
    paths: Sequence[str | None], image_roots: ImageRoots, *, root: Path | None
) -> PlacedRows:
    """Find the image path of each row, going by names alone; nothing is asked of the disk.

    Relative paths are below ``root``. Rows without a path, and those whose path lies outside
    every image root, are failures. Raises InvalidRequest for a relative path without a root.
    """
    placed = PlacedRows()
    rows = placed.row_of
    for row, path in enumerate(paths):
        if not path or "\0" in path:
            detail = "The old index has no path in this row that a file could have."
            placed.failures.append(ImageFailure(f"row {row}", FailureReason.BAD_ROW, detail))
            continue
        image_path = image_path_of(path, row, root)
        try:
            image_roots.root_of(image_path)
        except OutsideImageRoots as error:
            placed.failures.append(
                ImageFailure(image_path, FailureReason.OUTSIDE_ROOTS, str(error))
            )
            continue
        if rows.pop(image_path, None) is not None:  # Popped, so that the order stays rising.
            placed.duplicates += 1
        rows[image_path] = row
    return placed


def image_path_of(path: str, row: int, root: Path | None) -> str:
    """Return the absolute path that a row's path means. Raises InvalidRequest without a root."""
    if not path.startswith("/"):
        if root is None:
            raise InvalidRequest(
                f"The old index names its images by relative paths (row {row}: {path!r}); say by "
                "--root which directory they are below."
            )
        path = posixpath.join(root, path)
    # POSIX leaves it open what two slashes at the beginning mean; to Linux they are one.
    return "/" + posixpath.normpath(path).lstrip("/")


def written_path(path: str, root: Path | None) -> str:
    """Return how an old index names an image: below ``root`` relative to it, else as it is."""
    if root is not None and path.startswith(f"{root}/"):
        return path[len(str(root)) + 1 :]
    return path
