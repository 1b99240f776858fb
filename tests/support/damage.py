"""What disks, shares and people do to files.

Each puts another file in the place of the one that was there, since a process that has mapped a
file dies of SIGBUS when that very file is cut short.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def cut(path: Path) -> None:
    """Keep the first half."""
    _replace(path, path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    _replace(path, bytes(data))


def empty(path: Path) -> None:
    """Keep the name alone."""
    _replace(path, b"")


def delete(path: Path) -> None:
    """Keep nothing."""
    path.unlink()


DAMAGES: tuple[Callable[[Path], None], ...] = (cut, flip, empty, delete)


def _replace(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)
