"""A folder of pictures that changes at random, and the plain model of what is in it."""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

BROKEN = "broken"
"""The content of files that are no pictures."""

_BROKEN_BYTES = b"\x89PNG\r\n\x1a\n and no more"
_FOLDERS = ("", "a", "b", "b/c", "d")
_LEAST_FILES = 8  # An empty image root would be a missing mount.
_TIME_STEP_NS = 1_000_000_007
_FIRST_TIME_NS = 1_600_000_000 * 10**9


class Photos:
    """Picture files below a root; ``present`` says which content each has.

    Every write gets a modification time of its own, since two versions of one size and time could
    not be told apart by anybody who does not read them.
    """

    def __init__(
        self, root: Path, contents: Mapping[str, bytes], chance: random.Random, *, most_files: int
    ) -> None:
        self.root = root
        self.present: dict[str, str] = {}  # Path -> name of its content.
        self.former: dict[str, set[str]] = defaultdict(set)  # All that it ever had.
        self._contents = {**contents, BROKEN: _BROKEN_BYTES}
        self._pictures = sorted(contents)
        self._chance = chance
        self._most_files = most_files
        self._names = 0
        self._time_ns = _FIRST_TIME_NS
        for folder in _FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)

    @property
    def pictures(self) -> dict[str, str]:
        """The files that can be indexed, and their contents."""
        return {path: content for path, content in self.present.items() if content != BROKEN}

    def add_some(self, count: int) -> None:
        """Add new files."""
        for _ in range(count):
            self._add()

    def change(self) -> tuple[str, set[str]]:
        """Do something at random; return what, and the paths of which something changed."""
        operations: dict[str, Callable[[], set[str]]] = {"add": self._add}
        if self.present:
            operations |= {
                "change": self._change,
                "break": self._break,
                "touch": self._touch,
                "move": self._move,
                "move over another": self._move_over,
                "copy": self._copy,
                "rename a folder": self._rename_folder,
                "swap": self._swap,
            }
        if len(self.present) >= self._most_files:
            del operations["add"], operations["copy"]
        if len(self.present) > _LEAST_FILES:
            operations["remove"] = self._remove
        name = self._chance.choice(sorted(operations))
        return name, operations[name]()

    def _add(self) -> set[str]:
        path = self._new_path()
        self._write(path, self._chance.choice(self._pictures))
        return {path}

    def _change(self) -> set[str]:
        path = self._any()
        self._write(path, self._chance.choice(self._pictures))
        return {path}

    def _break(self) -> set[str]:
        path = self._any()
        self._write(path, BROKEN)
        return {path}

    def _touch(self) -> set[str]:
        path = self._any()
        self._stamp(path)
        return {path}

    def _move(self) -> set[str]:
        return self._rename(self._any(), self._new_path())

    def _move_over(self) -> set[str]:
        old, new = self._any(), self._any()
        return self._rename(old, new) if old != new and len(self.present) > _LEAST_FILES else set()

    def _copy(self) -> set[str]:
        old, new = self._any(), self._new_path()
        shutil.copy2(old, new)  # With the modification time.
        if self._chance.random() < 0.5:
            self._stamp(new)
        self._now_has(new, self.present[old])
        return {new}

    def _remove(self) -> set[str]:
        path = self._any()
        os.unlink(path)  # noqa: PTH108
        del self.present[path]
        return {path}

    def _rename_folder(self) -> set[str]:
        folder = self.root / self._chance.choice(_FOLDERS[1:])
        self._names += 1
        new = folder.with_name(f"{folder.name}-{self._names}")
        folder.rename(new)
        touched = set()
        for path in [path for path in self.present if path.startswith(f"{folder}/")]:
            moved = f"{new}{path.removeprefix(str(folder))}"
            self._now_has(moved, self.present.pop(path))
            touched |= {path, moved}
        for name in _FOLDERS:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        return touched

    def _swap(self) -> set[str]:
        one, other = self._any(), self._any()
        if one == other:
            return set()
        aside = f"{one}.aside"
        os.rename(one, aside)  # noqa: PTH104
        os.rename(other, one)  # noqa: PTH104
        os.rename(aside, other)  # noqa: PTH104
        contents = self.present[one], self.present[other]
        self._now_has(other, contents[0])
        self._now_has(one, contents[1])
        return {one, other}

    def _rename(self, old: str, new: str) -> set[str]:
        os.rename(old, new)  # noqa: PTH104
        self._now_has(new, self.present.pop(old))
        return {old, new}

    def _write(self, path: str, content: str) -> None:
        aside = f"{path}.aside"
        Path(aside).write_bytes(self._contents[content])
        self._stamp(aside)
        os.rename(aside, path)  # noqa: PTH104
        self._now_has(path, content)

    def _stamp(self, path: str) -> None:
        self._time_ns += _TIME_STEP_NS
        os.utime(path, ns=(self._time_ns, self._time_ns))

    def _now_has(self, path: str, content: str) -> None:
        self.present[path] = content
        self.former[path].add(content)

    def _any(self) -> str:
        return self._chance.choice(sorted(self.present))

    def _new_path(self) -> str:
        self._names += 1
        folder = self.root / self._chance.choice(_FOLDERS)
        return str(folder / f"photo-{self._names:05}.{self._chance.choice(('jpg', 'png'))}")
