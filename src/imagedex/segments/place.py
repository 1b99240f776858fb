"""Which directory this is: how two machines know that one path leads both to the same one."""

from __future__ import annotations

import secrets
from pathlib import Path

from imagedex.core.errors import StorageError
from imagedex.segments import layout
from imagedex.segments.durable import create_file, make_directory, storage_errors


def place_of(index_prefix: Path) -> str:
    """Return the name of an index's directory that no other one has, giving it one at first.

    All processes that ask get the same. Raises StorageError.
    """
    path = index_prefix / layout.PLACE
    make_directory(index_prefix)
    if not path.exists():
        name = secrets.token_hex(16).encode()
        try:
            create_file(path, lambda file: file.write(name))
        except StorageError:
            # Another process may have given it one in this moment; the first one counts.
            if not path.exists():
                raise
    with storage_errors("read", path):
        return path.read_text()


def require_place(index_prefix: Path, place: str) -> None:
    """Raise StorageError unless this is the directory that got this name."""
    path = index_prefix / layout.PLACE
    with storage_errors("read", path):
        found = path.read_text()
    if found != place:
        raise StorageError(
            f"{str(index_prefix)!r} is another directory than the index's, going by its file "
            f"{path.name}; mount the storage of the index there."
        )
