"""Finding the image files below a directory."""

# Image paths are strings here, as scandir and the kernel give them.
# ruff: noqa: PTH119

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from operator import attrgetter

from imagedex.core.errors import InvalidRequest
from imagedex.core.images import FailureReason, ImageFailure
from imagedex.ingest.ignoring import IgnoreRules
from imagedex.ingest.interfaces import ScannedFile
from imagedex.ingest.opening import MAX_MTIME_NS, look_through_link, refusal
from imagedex.ingest.roots import ImageRoots
from imagedex.ingest.unusable import UnusableImage, printable_path

NOTHING_IGNORED = IgnoreRules()

_name_of = attrgetter("name")
_status = os.stat
_is_regular = stat.S_ISREG
# What the constructor of a NamedTuple does in the end, without the way there.
_scanned_file = partial(tuple.__new__, ScannedFile)

IMAGE_EXTENSIONS = frozenset(
    "avif bmp dib gif heic heif jfif jpe jpeg jpg png tif tiff webp".split()
)
"""Endings, in lower case, of the files that a scan takes for images."""

SYSTEM_DIRECTORIES = frozenset(
    {
        "@eaDir",  # Synology: a thumbnail directory beside each picture.
        "#recycle",  # Synology: deleted files.
        "#snapshot",  # Synology: every file again for each snapshot.
        "@Recycle",  # QNAP: deleted files.
        "@Recently-Snapshot",  # QNAP: snapshots.
        "~snapshot",  # NetApp: snapshots, as CIFS shows them.
        "$RECYCLE.BIN",  # Windows: deleted files.
        "System Volume Information",  # Windows: the volume's own files.
        "lost+found",  # ext2/3/4: what fsck rescued; only root may read it.
    }
)
"""Directories of storage systems that hold copies, thumbnails or deleted files. Those that
begin with a dot (``.Trash-1000``, ``.snapshot``, ``.thumbnails``) are left out by that dot."""


def has_image_name(name: str) -> bool:
    """Say whether a scan would take a file of this name, or path, for an image."""
    name = os.path.basename(name)
    return not name.startswith(".") and _has_image_ending(name)


def _has_image_ending(name: str) -> bool:
    extension = name[name.rfind(".") + 1 :]
    # A name without a dot is not its own extension.
    return len(extension) < len(name) and extension.lower() in IMAGE_EXTENSIONS


def require_directory(directory: str) -> None:
    """Raise InvalidRequest unless this is a directory that can be listed."""
    try:
        with os.scandir(directory):
            return
    except FileNotFoundError as error:
        raise InvalidRequest(
            f"There is no directory {directory!r}; check the spelling and whether its share "
            "is mounted."
        ) from error
    except NotADirectoryError as error:
        raise InvalidRequest(
            f"{directory!r} is not a directory; name the one around it."
        ) from error
    except OSError as error:
        raise InvalidRequest(
            f"Directory {directory!r} cannot be listed: {error.strerror}; allow the server's "
            "user to read and enter it."
        ) from error


def scan(
    roots: ImageRoots, directory: str, *, ignore: IgnoreRules = NOTHING_IGNORED
) -> Iterator[ScannedFile | ImageFailure]:
    """Yield the files below a checked directory that may be images, while walking it.

    Raises InvalidRequest at once when the directory cannot be listed. The order depends on
    the names alone: the files of a directory by name, then its subdirectories by name. Names
    that begin with a dot, SYSTEM_DIRECTORIES and what ``ignore`` says are passed over. A link to a
    file counts as a file when it ends below an image root; a link to a directory is not entered,
    so there are no loops, and what it leads to is scanned where it lies. A link that appears during
    the scan does not lead it out of the roots. One directory is open at a time, from its
    first outcome to its last.

    A failure can name a directory (unreadable, vanished, name_not_utf8, outside_roots):
    nothing below it was seen, so nothing below it may be taken for deleted. A path that is
    not UTF-8 stands in its failure with its odd bytes written as ``\\xff``.
    """
    require_directory(directory)
    return _Walk(roots, directory, ignore).outcomes()


class _Walk:
    """One pass over all that lies below a directory."""

    def __init__(self, roots: ImageRoots, top: str, ignore: IgnoreRules) -> None:
        self._roots = roots
        self._top = top
        self._ignore = ignore
        self._root_length = len(roots.root_of(top).rstrip("/")) + 1 if ignore else 0

    def outcomes(self) -> Iterator[ScannedFile | ImageFailure]:
        """Yield what is found, one directory after the other."""
        waiting = [
            self._top
        ]  # A stack, since directories can be nested deeper than Python's calls.
        while waiting:
            directory = waiting.pop()
            try:
                # Somebody may have put a link in its place since its parent was listed.
                opened = self._roots.open_directory(
                    directory, is_link_allowed=directory == self._top
                )
            except UnusableImage as unusable:
                yield unusable.failure(directory)
                continue
            subdirectories: list[str] = []
            # Open until its last file is looked at: by then its path could lead elsewhere.
            with opened:
                yield from self._list(directory, opened.descriptor, subdirectories)
            waiting.extend(reversed(subdirectories))

    def _list(  # noqa: C901 - calls would take a third of the time of each of a million files.
        self, directory: str, descriptor: int, subdirectories: list[str]
    ) -> Iterator[ScannedFile | ImageFailure]:
        """Yield the files of an open directory, and add its directories to ``subdirectories``.

        A tree may have a million files, most of them plain and unchanged, so this asks the cheapest
        questions first and calls little.
        """
        try:
            # Listed whole before anything is yielded, since it is to be sorted.
            with os.scandir(descriptor) as listing:
                entries = sorted(listing, key=_name_of)
        except OSError as error:
            yield refusal(error).failure(directory)
            return
        prefix = directory if directory.endswith("/") else directory + "/"
        is_choosy = bool(self._ignore)
        for entry in entries:
            name = entry.name
            if name[0] == ".":
                continue
            path = prefix + name
            if is_choosy and self._ignore.passes_over(name, path[self._root_length :]):
                continue
            dot = name.rfind(".")
            has_image_ending = dot > 0 and name[dot + 1 :].lower() in IMAGE_EXTENSIONS
            if has_image_ending:
                try:
                    # Not asked of the entry, which would keep the answer as long as its directory.
                    status = _status(name, dir_fd=descriptor, follow_symlinks=False)
                except OSError:
                    status = None  # What is wrong is told below.
                if (
                    status is not None
                    and _is_regular(status.st_mode)
                    and (mtime_ns := status.st_mtime_ns) <= MAX_MTIME_NS
                    and (path.isascii() or _is_utf8(path))
                ):
                    yield _scanned_file((path, status.st_size, mtime_ns))
                    continue
            if _is_directory(entry):
                if (misnamed := _note_directory(name, path, subdirectories)) is not None:
                    yield misnamed
            elif has_image_ending:
                found = _look_at(self._roots, path, entry)
                if found is not None:
                    yield found


def _note_directory(name: str, path: str, subdirectories: list[str]) -> ImageFailure | None:
    """Add a directory to those that are scanned; return why it cannot be."""
    if name in SYSTEM_DIRECTORIES:
        return None
    if not _is_utf8(path):
        return _misnamed(path, "Nothing in this directory can be indexed")
    subdirectories.append(path)
    return None


def _look_at(
    roots: ImageRoots, path: str, entry: os.DirEntry[str]
) -> ScannedFile | ImageFailure | None:
    """Return what an entry with an image's name is; None for what is no file of its own."""
    if not path.isascii() and not _is_utf8(path):
        return _misnamed(path, "The file cannot be indexed")
    try:
        if entry.is_symlink():
            return _look_through(roots, path)
        return _taken(path, entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        if not entry.is_symlink():
            return None  # Deleted since the directory was listed.
        return ImageFailure(
            path, FailureReason.VANISHED, "The link leads to a file that is not there."
        )
    except OSError as error:
        return refusal(error).failure(path)


def _look_through(roots: ImageRoots, path: str) -> ScannedFile | ImageFailure | None:
    """Return what a link leads to. Raises OSError."""
    # By name first, so that nobody learns what there is outside the roots.
    real_path = os.path.realpath(path)
    if roots.holds_real_path(real_path):
        real_path, status = look_through_link(path)
    if not roots.holds_real_path(real_path):
        detail = f"The link leads to {real_path!r}, which lies outside every image root."
        return ImageFailure(path, FailureReason.OUTSIDE_ROOTS, detail)
    return None if stat.S_ISDIR(status.st_mode) else _taken(path, status)


def _taken(path: str, status: os.stat_result) -> ScannedFile | ImageFailure:
    if stat.S_ISREG(status.st_mode):
        mtime_ns = status.st_mtime_ns
        return ScannedFile(path, status.st_size, min(MAX_MTIME_NS, mtime_ns))
    return ImageFailure(
        path, FailureReason.NOT_A_FILE, "This is a device, FIFO or socket, not a file."
    )


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False  # Its type is unknown; asking for its size says why.


def _misnamed(path: str, consequence: str) -> ImageFailure:
    return ImageFailure(
        printable_path(path),
        FailureReason.NAME_NOT_UTF8,
        f"{consequence}: its name is not valid UTF-8. Rename it (convmv can rename many).",
    )


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
