"""Globs of paths, as regular expressions of RE2: no glob makes it take more than linear time."""

from __future__ import annotations

import re


def path_pattern(glob: str) -> str:
    """Return what a whole path must match, in the syntax of RE2.

    A glob without ``/`` is held against the file's name; one that begins with ``/`` against the
    whole path, another one against its end, from the beginning of a directory's name on. ``*``
    matches any characters, ``/`` too; ``?`` one; ``[ab]`` and ``[!ab]`` one of some, or of all
    others. Upper and lower case differ. (What scans pass over is named in the same way.)
    """
    before = r"\A" if glob.startswith("/") else r"\A(?:.*/)?"
    name_only = "" if "/" in glob else "[^/]"
    return f"(?s){before}{_translated(glob, any_character=name_only or '.')}" + r"\z"


def _translated(glob: str, *, any_character: str) -> str:
    pattern: list[str] = []
    place = 0
    while place < len(glob):
        character = glob[place]
        place += 1
        if character == "*":
            if pattern[-1:] != [f"{any_character}*"]:
                pattern.append(f"{any_character}*")
        elif character == "?":
            pattern.append(any_character)
        elif character == "[" and (end := _end_of_set(glob, place)) > 0:
            pattern.append(_set(glob[place:end]))
            place = end + 1
        else:
            pattern.append(re.escape(character))
    return "".join(pattern)


def _end_of_set(glob: str, start: int) -> int:
    """Return where the ``]`` is that ends a set; the first character may be one itself."""
    first = start + 1 if glob[start : start + 1] == "!" else start
    return glob.find("]", first + 1)


def _set(content: str) -> str:
    negation = "^" if content.startswith("!") else ""
    members = re.sub(r"([\\\]\[^])", r"\\\1", content.removeprefix("!"))
    return f"[{negation}{members}]"
