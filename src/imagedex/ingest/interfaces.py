"""What reading pictures is to the rest of Imagedex."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from imagedex.core.images import FileStamp, ImageFacts, ImageFailure


class ScannedFile(NamedTuple):
    """A file that a scan found and that may be an image.

    A flat tuple, since a scan makes one of each of a million files, most of them to no effect.
    """

    image_path: str  # Absolute, as named from the image root (links are not resolved).
    size: int  # Bytes.
    mtime_ns: int  # Nanoseconds since the epoch.

    @classmethod
    def of(cls, image_path: str, stamp: FileStamp) -> Self:
        """Return the file with this stamp."""
        return cls(image_path, stamp.size, stamp.mtime_ns)

    @property
    def stamp(self) -> FileStamp:
        """Size and mtime."""
        return FileStamp(self.size, self.mtime_ns)


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What one picture may cost."""

    max_file_bytes: int = 512 * 1024 * 1024
    max_pixels: int = 300_000_000  # Width times height, read from the header before decoding.
    timeout_seconds: float = 60.0  # Reading, hashing and decoding of one file.
    memory_bytes: int = 4 * 1024 * 1024 * 1024  # Address space of one decoder process.


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A picture that was read, hashed, decoded and preprocessed."""

    facts: ImageFacts
    pixels: NDArray[np.uint8]  # What the preprocess returned.


@dataclass(frozen=True, slots=True)
class KnownImage:
    """A file that was read and hashed, and not decoded, since its content is known."""

    image_path: str
    content_hash: str  # One of those that were named for it.
    stamp: FileStamp


class ImageDecoder(Protocol):
    """Reads files and makes model input of them. Safe to call from several threads."""

    def decode(self, image_paths: Iterable[str]) -> Iterator[DecodedImage | ImageFailure]:
        """Yield exactly one outcome for each path, in the order given.

        Begins at once, and looks ahead by a bounded number of images for each caller, so that
        decoding goes on while the caller works on what it got. No file, however broken or
        hostile, raises here, hangs longer than the time limit, or changes the outcome of
        another. What is not a file's fault does raise: EngineError (no process can be started,
        closed), ModelError (the preprocessing step is of no use).
        """
        ...

    def close(self) -> None:
        """End the decoder's processes. Calling it again does nothing."""
        ...


class SparingDecoder(ImageDecoder, Protocol):
    """A decoder that can leave out what need not be decoded."""

    def decode_unknown(
        self, image_paths: Iterable[str], known_hashes: Mapping[str, Collection[str]]
    ) -> Iterator[DecodedImage | KnownImage | ImageFailure]:
        """Do what ``decode`` does, but do not decode what has one of the hashes known for it.

        ``known_hashes`` has SHA-256 hashes, hexadecimal, by path; few for each, since they
        travel with it. A path that is not in it is decoded.
        """
        ...
