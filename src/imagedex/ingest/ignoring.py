"""What a scan passes over at the operator's wish."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import translate

from imagedex.core.errors import SettingsError


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """Globs of files and directories that a scan passes over; a directory with all it holds.

    A glob without ``/`` is held against the name of each file and directory, one with it against
    the path below the image root. ``*`` matches any characters, ``/`` too; ``?`` one, ``[ab]`` one
    of some. Upper and lower case differ. Raises SettingsError for a glob that matches nothing a
    scan could meet.
    """

    globs: tuple[str, ...] = ()
    _names: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _paths: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare for many questions."""
        for glob in self.globs:
            if not glob.strip("/") or ".." in glob.split("/") or "\0" in glob:
                raise SettingsError(
                    f"The glob {glob!r} of what to ignore matches no file; expected for example "
                    "'*_thumb.jpg' or 'private/*'."
                )
        globs = [glob.rstrip("/") for glob in self.globs]
        object.__setattr__(self, "_names", _any_of(g for g in globs if "/" not in g))
        paths = (g.lstrip("/") for g in globs if "/" in g)
        object.__setattr__(self, "_paths", _any_of(paths))

    def __bool__(self) -> bool:
        """Whether there is any rule."""
        return bool(self.globs)

    def passes_over(self, name: str, path_below_root: str) -> bool:
        """Say whether a file or directory is to be left out."""
        return bool(self._names is not None and self._names.match(name)) or bool(
            self._paths is not None and self._paths.match(path_below_root)
        )


def _any_of(globs: Iterable[str]) -> re.Pattern[str] | None:
    patterns = [translate(glob) for glob in globs]
    return re.compile("|".join(patterns)) if patterns else None
