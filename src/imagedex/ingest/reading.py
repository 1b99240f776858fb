"""The bytes of an image file, read once and whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from imagedex.core.images import FailureReason, FileStamp
from imagedex.ingest.opening import OpenedFile, refusal
from imagedex.ingest.roots import ImageRoots
from imagedex.ingest.unusable import UnusableImage

_READ_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileBytes:
    """What a file held at one moment."""

    data: bytes
    stamp: FileStamp  # Unchanged from before the first byte was read until after the last.


def read_image(
    roots: ImageRoots,
    image_path: str,
    *,
    max_file_bytes: int,
    on_open: Callable[[FileStamp], None],
) -> FileBytes:
    """Read a file below the roots; ``on_open`` is told its stamp before any byte is read.

    A file that changes while it is read is read once more. Raises UnusableImage (those of
    :meth:`ImageRoots.open_image`, empty, too_many_bytes, and unreadable for a file that is
    still being written).
    """
    for _ in range(2):
        with roots.open_image(image_path) as opened:
            before = opened.stamp()
            on_open(before)
            _require_size(before, max_file_bytes)
            data = _read(opened, before.size)
            if opened.stamp() == before and len(data) == before.size:
                return FileBytes(data, before)
    # Without a stamp, so that the next scan tries it again.
    raise UnusableImage(
        FailureReason.UNREADABLE, "The file is still being written; it changed while it was read."
    )


def _require_size(stamp: FileStamp, max_file_bytes: int) -> None:
    if stamp.size == 0:
        raise UnusableImage(FailureReason.EMPTY, "The file has no bytes.", stamp=stamp)
    if stamp.size > max_file_bytes:
        raise UnusableImage(
            FailureReason.TOO_MANY_BYTES,
            f"The file has {stamp.size} bytes; the limit is {max_file_bytes} "
            "(IMAGEDEX_DECODING__MAX_FILE_BYTES).",
            stamp=stamp,
        )


def _read(opened: OpenedFile, size: int) -> bytes:
    """Read up to ``size`` bytes and one more, which tells a file that has grown."""
    blocks = []
    missing = size + 1
    try:
        while missing and (block := os.read(opened.descriptor, min(missing, _READ_BYTES))):
            blocks.append(block)
            missing -= len(block)
    except OSError as error:
        raise refusal(error) from error
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)
