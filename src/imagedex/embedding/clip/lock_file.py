"""The lock file of an installed model: where its files come from, and their digests.

It is written last, when all other files of the directory are in place, so that its presence
says that the model is complete. A directory without one can be a model all the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.small_files import read_small_file

LOCK_FILE = "imagedex.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class LockedSource:
    """A repository that files of the model were taken from."""

    repo: str  # As owner/name.
    revision: str  # The full commit.


@dataclass(frozen=True, slots=True)
class LockedFile:
    """A file of the model, as it was when it was written."""

    path: str  # Relative to the model's directory, with slashes.
    bytes: int
    sha256: str  # Hexadecimal.
    mtime_ns: int  # When it was last written; while it and the size stay, so does the digest.

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> LockedFile:
        """Read one. Raises KeyError, TypeError, ValueError or OverflowError when it is none."""
        return cls(
            _text(content["path"]),
            int(content["bytes"]),
            _text(content["sha256"]),
            int(content["mtime_ns"]),
        )


@dataclass(frozen=True, slots=True)
class LockedTextAxis:
    """Whether the text graph runs at the real length of a text."""

    is_dynamic: bool
    reason: str  # Why it does not, or how it was made to; a sentence.


@dataclass(frozen=True, slots=True)
class LockFile:
    """What ``imagedex.json`` holds."""

    name: str  # That the model was installed under.
    sources: tuple[LockedSource, ...]  # Empty for files that the user brought.
    files: tuple[LockedFile, ...]
    text_axis: LockedTextAxis | None = None

    @classmethod
    def read(cls, directory: Path) -> LockFile | None:
        """Return the lock of the model in ``directory``, or None where there is none.

        Raises ModelError for one that cannot be read or is damaged.
        """
        path = directory / LOCK_FILE
        try:
            content = read_small_file(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise ModelError(
                f"The lock file {str(path)!r} of a model cannot be read: {error}; give this user "
                "the right to read it, or install the model again."
            ) from error
        try:
            return cls._from_json(json.loads(content))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ModelError(
                f"The lock file {str(path)!r} of a model is damaged ({error!r}); install the "
                "model again with --force, or delete this file to use the others as they are."
            ) from error

    def to_json(self) -> str:
        """Return the text of the file."""
        content: dict[str, Any] = {
            "format": _FORMAT,
            "name": self.name,
            "sources": [
                {"repo": source.repo, "revision": source.revision} for source in self.sources
            ],
            "files": [
                {
                    "path": file.path,
                    "bytes": file.bytes,
                    "sha256": file.sha256,
                    "mtime_ns": file.mtime_ns,
                }
                for file in self.files
            ],
        }
        if self.text_axis is not None:
            content["text_axis"] = {
                "dynamic": self.text_axis.is_dynamic,
                "reason": self.text_axis.reason,
            }
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def _from_json(cls, content: dict[str, Any]) -> LockFile:
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']!r}, of another release of Imagedex")
        axis = content.get("text_axis")
        return cls(
            name=_text(content["name"]),
            sources=tuple(
                LockedSource(_text(each["repo"]), _text(each["revision"]))
                for each in content["sources"]
            ),
            files=tuple(map(LockedFile.from_json, content["files"])),
            text_axis=(
                LockedTextAxis(bool(axis["dynamic"]), _text(axis["reason"])) if axis else None
            ),
        )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} where a text was expected")
    return value
