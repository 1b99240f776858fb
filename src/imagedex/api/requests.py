"""What clients send to the REST API, field by field as the contract names it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, StrictBool, StrictInt, StrictStr

from imagedex.access.records import Scope
from imagedex.api.bodies import MAX_FIELDS, MAX_SMALL_BODY_BYTES, MAX_SMALL_BODY_ENTRIES
from imagedex.api.examples import IMAGE_PATH, examples_of
from imagedex.api.fields import (
    MAX_PATHS,
    AbsolutePath,
    IgnoreGlobs,
    ImagePaths,
    PriorityName,
    QueryText,
)
from imagedex.api.queries import (
    MAX_IMAGE_IDS,
    Cosine,
    CursorText,
    DuplicateScore,
    FilterDocument,
    ImageId,
    TermDocument,
)
from imagedex.search.query import DEFAULT_DUPLICATE_SCORE, MAX_TERMS


class _Request(BaseModel):
    """What a client sends. Unknown fields are refused: most are misspelt known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # How large a body of this kind may be; None leaves it to the server's own limit.
    max_body_bytes: ClassVar[int | None] = MAX_SMALL_BODY_BYTES
    # How many items of lists and fields it may have in all, and how many of these are fields.
    max_entries: ClassVar[int] = MAX_SMALL_BODY_ENTRIES
    max_fields: ClassVar[int] = MAX_FIELDS


class TriggerRequest(_Request):
    """Scan a directory and index what is new or changed in it."""

    model_config = examples_of({"image_dir": "/photos/2025", "priority": "high"})

    image_dir: AbsolutePath = Field(description="Directory below an image root.")
    index_prefix: AbsolutePath | None = Field(None, description="By default the server's index.")
    force_reindex: StrictBool = Field(False, description="Embed unchanged images again too.")
    ignore: IgnoreGlobs = Field(
        [], description="Globs of files and directories that this scan passes over as well."
    )
    priority: PriorityName = "normal"


class NotifyRequest(_Request):
    """Bring single images up to date: each may be new, changed or gone."""

    model_config = examples_of({"image_paths": [IMAGE_PATH], "priority": "normal"})

    max_body_bytes = None  # Ten thousand paths are large.
    max_entries = MAX_PATHS + 100

    image_paths: ImagePaths = Field(description="Files below an image root.")
    priority: PriorityName = "normal"
    index_prefix: AbsolutePath | None = Field(None, description="By default the server's index.")


class RebuildRequest(_Request):
    """Make one segment of all that an index has."""

    model_config = examples_of({"priority": "low"})

    index_prefix: AbsolutePath | None = Field(None, description="By default the server's index.")
    priority: PriorityName = "normal"


class SnapshotRequest(_Request):
    """Keep the current generation of an index."""

    model_config = examples_of({"name": "before-the-move"})

    name: StrictStr | None = Field(
        None, description="By default after the time and the generation's number."
    )
    index_prefix: AbsolutePath | None = Field(None, description="By default the server's index.")


class RestoreRequest(_Request):
    """Go back to a snapshot."""

    model_config = examples_of({})

    index_prefix: AbsolutePath | None = Field(None, description="By default the server's index.")


class ModelRequest(_Request):
    """Give an index another model."""

    model_config = examples_of({"model": "clip-ViT-B-32"})

    model: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="A name of `imagedex models list`, not a path."
    )
    precision: Literal["fp32", "bf16", "int8"] | None = Field(
        None, description="By default the server's for the server's own model, or `fp32`."
    )
    index_prefix: AbsolutePath | None = Field(None, description="By default the server's index.")
    priority: PriorityName = "normal"


class QueryRequest(_Request):
    """Find images by a text, by an image, or by several of both."""

    model_config = examples_of(
        {"text": "dogs playing in a park", "top_k": 5, "filter": {"path_prefix": "/photos/2025"}}
    )

    # Holds ten thousand ids beside the longest text.
    max_body_bytes = 2 * MAX_SMALL_BODY_BYTES
    max_fields = 3 * MAX_FIELDS  # Sixteen terms of three fields.
    max_entries = MAX_IMAGE_IDS + 400

    text: QueryText | None = Field(
        None, description="What the images show. Exactly one of this, `image_id` and `terms`."
    )
    image_id: ImageId | None = Field(
        None, description="More like this image, which itself is left out."
    )
    terms: Annotated[list[TermDocument], Field(min_length=1, max_length=MAX_TERMS)] | None = Field(
        None, description="Several texts and images, each with a weight."
    )
    top_k: Annotated[StrictInt, Field(ge=1, le=1000)] = 10
    filter: FilterDocument | None = Field(None, description="Which images count.")
    min_score: Cosine | None = Field(None, description="Results below are left out.")
    collapse_duplicates: StrictBool = Field(
        False, description="Show near-duplicates once, by the best of them."
    )
    duplicate_score: DuplicateScore = Field(
        DEFAULT_DUPLICATE_SCORE, description="From which cosine on images are near-duplicates."
    )
    cursor: CursorText | None = Field(
        None, description="The `next_cursor` of the page before, with the same request."
    )
    copy_results: StrictBool = Field(
        False, description="Must be false: this version returns paths and never copies files."
    )
    index_prefix: AbsolutePath | None = Field(None, description="By default the server's index.")


class KeyRequest(_Request):
    """Make an API key."""

    model_config = examples_of({"name": "photo upload", "scopes": ["index"]})

    name: Annotated[StrictStr, Field(min_length=1, max_length=100)]
    # As with paths, the first wrong scope ends the validation.
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope)), FailFast()]
