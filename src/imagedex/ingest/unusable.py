"""How the steps of reading a picture give an image up."""

from __future__ import annotations

from imagedex.core.errors import ImagedexError
from imagedex.core.images import FailureReason, FileStamp, ImageFailure


class UnusableImage(ImagedexError):
    """This image cannot be indexed as it is; it becomes an ImageFailure, never a job's error."""

    def __init__(
        self, reason: FailureReason, detail: str, *, stamp: FileStamp | None = None
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.stamp = stamp  # None when trying again later can help though the file is the same.

    def failure(self, image_path: str) -> ImageFailure:
        """Return the outcome that this means for the image."""
        return ImageFailure(image_path, self.reason, self.detail, self.stamp)


def printable_path(path: str) -> str:
    """Return a path fit for JSON and databases: odd bytes are written out, as ``\\xff``."""
    try:
        encoded = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # Half a surrogate pair, which no file name gives.
        encoded = path.encode("utf-8", "backslashreplace")
    return encoded.decode("utf-8", "backslashreplace")
