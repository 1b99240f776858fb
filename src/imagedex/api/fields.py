"""Types of single fields on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    FailFast,
    Field,
    PlainSerializer,
    StrictStr,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from imagedex.core.times import iso_z

MAX_PATH_LENGTH = 4096  # Linux's PATH_MAX.
MAX_TEXT_LENGTH = 10_000
MAX_PATHS = 10_000
MAX_GLOBS = 100
MAX_GLOB_LENGTH = 255  # As long as a file's name can be.


def _require_absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise PydanticCustomError(
            "absolute_path", "must be an absolute path: one that begins with '/', without NUL"
        )
    return path


def _require_words(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise PydanticCustomError("words", "must hold words, and no NUL")
    return text


AbsolutePath = Annotated[
    StrictStr,
    Field(
        min_length=1,
        max_length=MAX_PATH_LENGTH,
        # Documentation; the validator says the same in words.
        json_schema_extra={"pattern": r"^/[^\u0000]*$"},
    ),
    AfterValidator(_require_absolute),
]

QueryText = Annotated[
    StrictStr, Field(min_length=1, max_length=MAX_TEXT_LENGTH), AfterValidator(_require_words)
]

# The first wrong path ends the validation, so that ten thousand of them cost no more than one.
ImagePaths = Annotated[list[AbsolutePath], Field(min_length=1, max_length=MAX_PATHS), FailFast()]

IgnoreGlobs = Annotated[
    list[Annotated[StrictStr, Field(min_length=1, max_length=MAX_GLOB_LENGTH)]],
    Field(max_length=MAX_GLOBS),
]

PriorityName = Literal["low", "normal", "high"]

UtcTime = Annotated[
    datetime,
    PlainSerializer(iso_z, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
