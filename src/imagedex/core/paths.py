"""Where what the controller calls by one path lies on another machine."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, init=False)
class PathMapping:
    """Directories of the controller that are mounted elsewhere on a host. A value; picklable.

    It maps whole components: what is said of ``/srv/photos`` does not concern ``/srv/photos2``.
    Where several directories hold a path, the innermost counts.
    """

    pairs: tuple[tuple[str, str], ...]  # The controller's directory, the host's; longest first.

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        """Map the first of each pair to the second; raises ValueError unless both are absolute."""
        normalised = {_normalise(there): _normalise(here) for there, here in pairs}
        by_length = sorted(normalised.items(), key=lambda pair: (-len(pair[0]), pair[0]))
        object.__setattr__(self, "pairs", tuple(by_length))

    def local(self, path: str) -> str:
        """Return the host's path for one of the controller's; a path outside of all stays."""
        for there, here in self.pairs:
            if path == there:
                return here
            prefix = there.rstrip("/") + "/"
            if path.startswith(prefix):
                return here.rstrip("/") + "/" + path[len(prefix) :]
        return path


def _normalise(directory: str) -> str:
    if not directory.startswith("/") or "\0" in directory:
        raise ValueError(f"{directory!r} is not an absolute path")
    # normpath keeps two leading slashes, which POSIX lets mean something else; Linux does not.
    return "/" + posixpath.normpath(directory).lstrip("/")
