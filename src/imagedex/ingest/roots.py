"""Image roots: the directories that the operator allows, and nothing outside of them.

A path passes two gates. :meth:`ImageRoots.check` looks at its name when an outsider hands it
in; :meth:`ImageRoots.open_image` looks at the file that was really opened, because links may
have changed in between. Hard links cannot be told from the file itself: whoever may make one
below a root can make its file readable here.
"""

# Image paths are strings here, as scandir and the kernel give them.
# ruff: noqa: PTH114, PTH118

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from imagedex.core.errors import InvalidRequest, OutsideImageRoots
from imagedex.core.images import FailureReason
from imagedex.core.paths import PathMapping
from imagedex.ingest.opening import Opened, OpenedFile, open_directory, open_regular_file
from imagedex.ingest.unusable import UnusableImage

_MAX_PATH_BYTES = 4095
"""Linux's PATH_MAX, less the NUL that ends a path."""

_MAX_PATH_COMPONENTS = 255
"""Each component is a question to the file system, maybe over the network."""


@dataclass(frozen=True, slots=True, init=False)
class ImageRoots:
    """The image roots. A value: comparable, picklable, safe to use from several threads.

    Without directories nothing is allowed. A root may be a link, and need not exist yet. On a
    host that has them mounted elsewhere, ``places`` says where: paths are the controller's all
    the same, and what is opened lies where they lead here.
    """

    directories: tuple[str, ...]  # Absolute, normalised, as the operator spelt them.
    places: PathMapping

    def __init__(
        self,
        directories: Iterable[str | os.PathLike[str]] = (),
        places: PathMapping = PathMapping(),  # noqa: B008 - It is immutable.
    ) -> None:
        normalised = dict.fromkeys(_normalise(os.fspath(directory)) for directory in directories)
        object.__setattr__(self, "directories", tuple(normalised))
        object.__setattr__(self, "places", places)

    def placed(self, places: PathMapping) -> ImageRoots:
        """Return the same roots as they are mounted on another host."""
        return ImageRoots(self.directories, places)

    def check(self, path: str) -> str:
        """Return the path normalised, once it is sure that an outsider may name it.

        ``..`` is resolved by name. What exists of the path is followed through its links and
        must lie below a root as well. The path itself need not exist, and may be a root.
        Raises InvalidRequest for what is no absolute path, OutsideImageRoots.
        """
        return self.check_all([path])[0]

    def check_all(self, paths: Iterable[str]) -> list[str]:
        """Do what :meth:`check` does for many paths, asking once for each directory's links."""
        real_directories: dict[str, str] = {}
        checked = []
        for path in paths:
            image_path = _normalise(path)
            self.root_of(image_path)
            real_path = _follow(image_path, real_directories)
            if not self.holds_real_path(real_path):
                raise OutsideImageRoots(
                    f"{image_path!r} leads through a link to {real_path!r}, outside every image "
                    "root; name the file where it lies, or add its directory to "
                    "IMAGEDEX_IMAGE_ROOTS."
                )
            checked.append(image_path)
        return checked

    def root_of(self, path: str) -> str:
        """Return the innermost root that a normalised path lies in, going by its name.

        Raises OutsideImageRoots.
        """
        root = self.find_root(path)
        if root is not None:
            return root
        if not self.directories:
            raise OutsideImageRoots(
                f"{path!r} cannot be used: no image root is set. Set IMAGEDEX_IMAGE_ROOTS to the "
                "directories that may be read, separated by ':'."
            )
        raise OutsideImageRoots(
            f"{path!r} lies outside the image roots ({', '.join(self.directories)}); add its "
            "directory to IMAGEDEX_IMAGE_ROOTS."
        )

    def find_root(self, path: str) -> str | None:
        """Return the innermost root that a normalised path lies in, or None outside of all."""
        holding = [root for root in self.directories if _lies_in(path, root)]
        return max(holding, key=len, default=None)

    def holds_real_path(self, real_path: str) -> bool:
        """Say whether a path without links lies in a root, with the root's own links resolved.

        Both as they are on this machine.
        """
        here = [self.places.local(root) for root in self.directories]
        # A path without links that begins like a root shows that this root has no links either,
        # so the usual case asks the file system nothing.
        return any(_lies_in(real_path, root) for root in here) or any(
            _lies_in(real_path, os.path.realpath(root)) for root in here
        )

    def is_present(self, root: str) -> bool:
        """Say whether a root is a directory with something in it.

        An unmounted share leaves an empty directory, or none: that is not a deletion.
        """
        try:
            with os.scandir(self.places.local(root)) as entries:
                return next(entries, None) is not None
        except OSError:
            return False

    def open_image(self, image_path: str) -> OpenedFile:
        """Open a file for reading, having made sure that it is one and lies below a root.

        Never blocks on a FIFO and never opens a device. The place is that of the file which
        was opened, whatever its path may name a moment later. Raises UnusableImage
        (vanished, unreadable, not_a_file, outside_roots).
        """
        opened = open_regular_file(self.places.local(image_path))
        self._require_inside(opened)
        return opened

    def open_directory(self, directory: str, *, is_link_allowed: bool) -> Opened:
        """Open a directory for listing, having made sure that it lies below a root.

        The place is that of the directory which was opened, whatever its path may name a
        moment later. Raises UnusableImage (vanished, unreadable, outside_roots).
        """
        opened = open_directory(self.places.local(directory), is_link_allowed=is_link_allowed)
        self._require_inside(opened)
        return opened

    def _require_inside(self, opened: Opened) -> None:
        """Close what lies outside every root, and raise UnusableImage."""
        if not self.holds_real_path(opened.real_path):
            opened.close()
            raise UnusableImage(
                FailureReason.OUTSIDE_ROOTS,
                f"The path leads to {opened.real_path!r}, which lies outside every image root.",
            )


def _follow(path: str, real_directories: dict[str, str]) -> str:
    """Return a normalised path without its links.

    Asks the file system once for each directory that is not in ``real_directories`` yet, and
    adds it there.
    """
    directory, name = os.path.split(path)
    if not name:
        return path
    # Calls itself no deeper than a path may have components.
    if directory not in real_directories:
        real_directories[directory] = _follow(directory, real_directories)
    real_path = os.path.join(real_directories[directory], name)
    return os.path.realpath(real_path) if os.path.islink(real_path) else real_path


def _normalise(path: str) -> str:
    if not path:
        raise InvalidRequest("An empty path names nothing; name an absolute path.")
    if "\0" in path:
        raise InvalidRequest(f"Path {path!r} holds a NUL character, which no file name can.")
    try:
        encoded = path.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"Path {path!r} is not valid UTF-8; rename the file.") from error
    if len(encoded) > _MAX_PATH_BYTES:
        raise InvalidRequest(
            f"Path {path[:60]!r}… is {len(encoded)} bytes long; at most {_MAX_PATH_BYTES} can be."
        )
    if not path.startswith("/"):
        raise InvalidRequest(f"Path {path!r} is not absolute; name it from '/' on.")
    # normpath keeps two leading slashes, which POSIX lets mean something else; Linux does not.
    normalised = "/" + os.path.normpath(path).lstrip("/")
    if (components := normalised.count("/")) > _MAX_PATH_COMPONENTS:
        raise InvalidRequest(
            f"Path {path[:60]!r}… has {components} components; at most {_MAX_PATH_COMPONENTS} "
            "can be. Name a place that lies less deep."
        )
    return normalised


def _lies_in(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")
