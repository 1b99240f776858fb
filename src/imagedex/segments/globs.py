"""Globs of paths, as regular expressions of RE2: no glob makes it take more than linear time."""

from __future__ import annotations

import re


def path_pattern(glob: str) -> str:
    """Return what a whole path must match, in the syntax of RE2.

    A glob without ``/`` is held against the file's name; one that begins with ``/`` against the
    whole path, another one against its end, from the beginning of a directory's name on. ``*``
    matches any characters; ``?`` one; ``[ab]`` and ``[!ab]`` one of some, or of all others. In a
    glob with ``/`` they match ``/`` too. Upper and lower case differ. (What scans pass over is
    named in the same way.)
    """
    before = r"\A" if glob.startswith("/") else r"\A(?:.*/)?"
    return f"(?s){before}{_translated(glob, is_of_name='/' not in glob)}" + r"\z"


def _translated(glob: str, *, is_of_name: bool) -> str:
    any_character = "[^/]" if is_of_name else "."
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
            pattern.append(_set(glob[place:end], is_of_name=is_of_name))
            place = end + 1
        else:
            pattern.append(re.escape(character))
    return "".join(pattern)


def _end_of_set(glob: str, start: int) -> int:
    """Return where the ``]`` is that ends a set; the first character may be one itself."""
    first = start + 1 if glob[start : start + 1] == "!" else start
    return glob.find("]", first + 1)


def _set(content: str, *, is_of_name: bool) -> str:
    """Return a class of characters, without ``/`` in the glob of a name."""
    members = content.removeprefix("!")
    is_negated = members != content
    ranges = [("/", "/")] if is_of_name and is_negated else []
    place = 0
    while place < len(members):
        is_range = members[place + 1 : place + 2] == "-" and place + 2 < len(members)
        width = 3 if is_range else 1
        first, last = members[place], members[place + width - 1]
        place += width
        if is_of_name and not is_negated and first < "/" < last:
            ranges += [(first, "."), ("0", last)]  # The neighbours of "/".
        else:
            ranges.append((first, last))
    written = (f"{re.escape(first)}-{re.escape(last)}" for first, last in ranges)
    return f"[{'^' if is_negated else ''}{''.join(written)}]"
