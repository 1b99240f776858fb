"""The old scripts' state file: what they knew of each image, as one JSON document.

``{version, last_full_index, total_images, indexed_images: {path: {indexed_at, file_mtime,
file_size, index_position}}, pending_queue, failed_images}``. Times are ISO 8601 texts but for
``file_mtime``, which is seconds since the epoch as ``os.path.getmtime`` gives them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from imagedex.core.errors import InvalidRequest
from imagedex.core.images import FileStamp
from imagedex.core.times import iso_z
from imagedex.segments.durable import storage_errors

VERSION = "1.0"

# A float of seconds keeps a quarter of a microsecond; some writers kept milliseconds.
_MTIME_TOLERANCE_SECONDS = 2e-3


@dataclass(frozen=True, slots=True)
class OldImage:
    """What the state file says of an image."""

    index_position: int | None  # Its row.
    file_mtime: float | None  # Seconds since the epoch, when it was embedded.
    file_size: int | None  # Bytes.

    def is_of(self, stamp: FileStamp) -> bool:
        """Say whether a file is the one that was embedded, as far as the state file tells."""
        if self.file_size is not None and self.file_size != stamp.size:
            return False
        if self.file_mtime is None:
            return True
        mtime = stamp.mtime_ns / 1e9
        if float(self.file_mtime).is_integer():  # Kept in whole seconds, cut or rounded.
            return abs(mtime - self.file_mtime) < 1
        return abs(mtime - self.file_mtime) <= _MTIME_TOLERANCE_SECONDS


@dataclass(frozen=True, slots=True)
class OldState:
    """A state file."""

    images: dict[str, OldImage]  # By the path as it stands in the file.
    pending: int  # Images that waited to be embedded, and so have no vector.
    failed: int  # Images that had failed.


def read_state(file: Path) -> OldState:
    """Read a state file. Raises InvalidRequest that names what is wrong, StorageError."""
    try:
        with storage_errors("read", file):
            try:
                text = file.read_bytes()
            except FileNotFoundError as error:
                raise InvalidRequest(
                    f"There is no state file {str(file)!r}; check --state."
                ) from error
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The state file {str(file)!r} is not JSON: {error}.") from error
    indexed = document.get("indexed_images") if isinstance(document, dict) else None
    if not isinstance(indexed, dict):
        raise InvalidRequest(
            f"The state file {str(file)!r} has no object 'indexed_images' of paths; check --state."
        )
    images = {path: _image(file, path, value) for path, value in indexed.items()}
    return OldState(
        images, _count(document.get("pending_queue")), _count(document.get("failed_images"))
    )


@dataclass(frozen=True, slots=True)
class WrittenImage:
    """An image as it is written to a state file."""

    path: str
    stamp: FileStamp
    index_position: int


def encode_state(
    images: Iterable[WrittenImage], *, indexed_at: datetime, failed: Iterable[str] = ()
) -> bytes:
    """Return a state file's content.

    ``indexed_at`` stands for every image, since an index keeps one moment for all.
    """
    moment = iso_z(indexed_at)
    indexed = {
        image.path: {
            "indexed_at": moment,
            "file_mtime": image.stamp.mtime_ns / 1e9,
            "file_size": image.stamp.size,
            "index_position": image.index_position,
        }
        for image in images
    }
    document = {
        "version": VERSION,
        "last_full_index": moment,
        "total_images": len(indexed),
        "indexed_images": indexed,
        "pending_queue": [],
        "failed_images": sorted(failed),
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _image(file: Path, path: str, value: Any) -> OldImage:
    fields = value if isinstance(value, dict) else {}
    position = fields.get("index_position")
    mtime, size = fields.get("file_mtime"), fields.get("file_size")
    if not (
        isinstance(value, dict)
        and _is_number(position, int)
        and _is_number(mtime, int, float)
        and _is_number(size, int)
    ):
        raise InvalidRequest(
            f"The state file {str(file)!r} has no object of index_position, file_mtime (seconds "
            f"since the epoch) and file_size for {path!r}, but {str(value)[:100]!r}."
        )
    return OldImage(position, mtime, size)


def _is_number(value: Any, *kinds: type[int | float]) -> bool:
    if value is None:
        return True
    # What is larger, infinite or no number is no time and no size.
    return isinstance(value, kinds) and not isinstance(value, bool) and -(2**63) < value < 2**63


def _count(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 0
