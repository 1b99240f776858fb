"""What is known of one image on its way into an index."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FailureReason(StrEnum):
    """Why an image could not be indexed: one word for lists, filters and metrics."""

    EMPTY = "empty"  # The file has no bytes.
    TRUNCATED = "truncated"  # It begins as an image and breaks off.
    NOT_AN_IMAGE = "not_an_image"  # No decoder knows it.
    DAMAGED = "damaged"  # A decoder knows it but cannot make a picture of it.
    TOO_MANY_PIXELS = "too_many_pixels"  # More pixels than the limit allows.
    TOO_MANY_BYTES = "too_many_bytes"  # A larger file than the limit allows.
    UNREADABLE = "unreadable"  # The operating system refuses to read it.
    VANISHED = "vanished"  # It was listed or notified, and is not there.
    NOT_A_FILE = "not_a_file"  # A directory, device, FIFO or socket.
    OUTSIDE_ROOTS = "outside_roots"  # A link leads out of the image roots.
    NAME_NOT_UTF8 = "name_not_utf8"  # Its name cannot be written in JSON or a database.
    DECODER_TIMEOUT = "decoder_timeout"  # The decoder took too long and was ended.
    DECODER_CRASHED = "decoder_crashed"  # The decoder process died on it.
    WORKER_CRASHED = "worker_crashed"  # Worker processes died, or hung, on it and nothing else.
    CHANGED = "changed"  # Of an old index: the file is another one than was embedded.
    BAD_ROW = "bad_row"  # Of an old index: a row without a usable path or vector.


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What tells cheaply whether a file may have changed."""

    size: int  # Bytes.
    mtime_ns: int  # Nanoseconds since the epoch.


@dataclass(frozen=True, slots=True)
class ImageFailure:
    """One image that could not be indexed."""

    image_path: str
    reason: FailureReason
    detail: str  # A sentence for the operator.
    stamp: FileStamp | None = None  # Of the file that failed: until it changes, a scan leaves it.

    @classmethod
    def without_direction(cls, facts: ImageFacts) -> ImageFailure:
        """Return the failure of an image that could be read, but to which no vector was found."""
        detail = "The model gave no finite vector for this picture."
        return cls(facts.image_path, FailureReason.DAMAGED, detail, facts.stamp)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is recorded of an indexed image beside its vector."""

    image_path: str  # Absolute, below an image root.
    content_hash: str  # SHA-256 of the file's bytes, hexadecimal.
    stamp: FileStamp  # Taken from the open file that was decoded.
    width: int  # Pixels, as displayed (after EXIF orientation).
    height: int
    format: str  # Pillow's name of the format: JPEG, PNG, …


@dataclass(frozen=True, slots=True, order=True)
class RowLocation:
    """Where a vector lies: a row of a segment."""

    segment: int  # Number of the segment.
    row: int  # From 0.
