"""Typed reading of a model's JSON files, with errors that name the file and the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.small_files import read_small_file

# Beyond all models that there are. Files come from strangers, and what they count is reserved.
_LARGEST_COUNT = 65_536
_LARGEST = 1e6  # NaN and infinity, which Python's JSON can carry, are not below it either.


class JsonFields:
    """The object in a JSON file, or one within it.

    Each getter raises ModelError for a value of another type, and, without a ``default``, for
    one that is missing. A default is given only where the format itself defines one.
    """

    def __init__(self, content: object, *, path: Path, prefix: str = "") -> None:
        """Read ``content``, found in ``path`` below the fields of ``prefix``."""
        self._path = path
        self._prefix = prefix
        if not isinstance(content, dict):
            raise ModelError(f"{self._named('')} should be a JSON object, not {content!r:.80}.")
        self._content: dict[str, Any] = content

    @classmethod
    def load(cls, path: Path) -> JsonFields:
        """Read the object in the file ``path``."""
        try:
            content = json.loads(read_small_file(path))
        except OSError as error:
            raise ModelError(
                f"The model's file {str(path)!r} cannot be read: {error}; give this user the "
                "right to read it, or pull the model again."
            ) from error
        except (ValueError, RecursionError) as error:
            raise ModelError(
                f"The model's file {str(path)!r} is no JSON ({error}); pull the model again."
            ) from error
        return cls(content, path=path)

    def __contains__(self, name: str) -> bool:
        return self._content.get(name) is not None

    def section(self, name: str) -> JsonFields:
        """Return the object within ``name``; an empty one where it is missing."""
        content = self._content.get(name)
        prefix = f"{self._prefix}{name}."
        return JsonFields({} if content is None else content, path=self._path, prefix=prefix)

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text."""
        value = self.raw(name, default)
        if not isinstance(value, str):
            raise self.fault(name, value, "a text")
        return value

    def flag(self, name: str, default: bool | None = None) -> bool:
        """Return true or false."""
        value = self.raw(name, default)
        if not isinstance(value, bool):
            raise self.fault(name, value, "true or false")
        return value

    def count(self, name: str, default: int | None = None) -> int:
        """Return a whole number that pixels, tokens or dimensions are counted by."""
        return self.as_count(name, self.raw(name, default))

    def as_count(self, name: str, value: object) -> int:
        """Return ``value``, which is what the field ``name`` holds, as a number to count with."""
        if type(value) is not int or not 1 <= value <= _LARGEST_COUNT:
            raise self.fault(name, value, f"a whole number from 1 to {_LARGEST_COUNT:,}")
        return value

    def triple(self, name: str) -> tuple[float, float, float]:
        """Return three numbers, one for each of red, green and blue."""
        value = self.raw(name, None)
        if not isinstance(value, list) or len(value) != 3:
            raise self.fault(name, value, "three numbers")
        numbers = [each for each in value if type(each) in (int, float) and abs(each) < _LARGEST]
        if len(numbers) != 3:
            raise self.fault(name, value, "three numbers")
        return float(numbers[0]), float(numbers[1]), float(numbers[2])

    def raw(self, name: str, default: object = None) -> object:
        """Return whatever ``name`` holds. Raises ModelError when it is missing."""
        value = self._content.get(name)
        if value is None:
            value = default
        if value is None:
            raise ModelError(
                f"{self._named(name)} is missing. Imagedex does not guess it: take the file "
                "from where the model's graphs come from."
            )
        return value

    def fault(self, name: str, value: object, expected: str) -> ModelError:
        """Return the error of a value that is not what was expected."""
        return ModelError(f"{self._named(name)} is {value!r:.80}, but expected is {expected}.")

    def _named(self, name: str) -> str:
        return f"{self._prefix}{name} in {str(self._path)!r}" if name else repr(str(self._path))
