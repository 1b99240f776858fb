"""The parts of a query on the wire, and what they mean."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, FailFast, Field, StrictStr

from imagedex.api.fields import AbsolutePath, QueryText
from imagedex.search import ImageTerm, Term, TextTerm
from imagedex.search.query import DEFAULT_DUPLICATE_SCORE
from imagedex.segments import ImageFilter

MAX_GLOBS = 16
MAX_IMAGE_IDS = 10_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64_MAX = 2**63 - 1

ImageId = Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{20}$", max_length=20)]
Glob = Annotated[StrictStr, Field(min_length=1, max_length=255)]
Bytes = Annotated[int, Field(ge=0, le=_INT64_MAX - 1)]
Pixels = Annotated[int, Field(ge=0, le=2**31 - 1)]
Cosine = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
DuplicateScore = Annotated[float, Field(ge=0.5, le=1, allow_inf_nan=False)]
CursorText = Annotated[StrictStr, Field(min_length=1, max_length=100)]


class FilterFields(BaseModel):
    """Which images count, but for their ids: those that pass all tests that are given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path_prefix: AbsolutePath | None = Field(
        None, description="A directory with all that lies below it, or one file."
    )
    path_globs: Annotated[list[Glob], Field(max_length=MAX_GLOBS), FailFast()] = Field(
        [],
        description="One of them must match: the file's name, or with a `/` the path's end, or "
        "from a leading `/` on all of it. `*` matches any characters, `/` too.",
    )
    modified_after: AwareDatetime | None = Field(
        None, description="The file's modification time, from then on."
    )
    modified_before: AwareDatetime | None = Field(None, description="And before then.")
    min_bytes: Bytes | None = Field(None, description="The file's size.")
    max_bytes: Bytes | None = None
    min_width: Pixels | None = Field(None, description="Pixels, as displayed.")
    max_width: Pixels | None = None
    min_height: Pixels | None = None
    max_height: Pixels | None = None

    def to_filter(self) -> ImageFilter | None:
        """Return the filter, None when it leaves nothing out."""
        return self._filter(None) or None

    def _filter(self, image_ids: tuple[str, ...] | None) -> ImageFilter:
        return ImageFilter(
            path_prefix=self.path_prefix,
            path_globs=tuple(dict.fromkeys(self.path_globs)),
            modified_after_ns=_nanoseconds(self.modified_after),
            modified_before_ns=_nanoseconds(self.modified_before),
            min_bytes=self.min_bytes,
            max_bytes=self.max_bytes,
            min_width=self.min_width,
            max_width=self.max_width,
            min_height=self.min_height,
            max_height=self.max_height,
            image_ids=image_ids,
        )


class FilterDocument(FilterFields):
    """Which images count: those that pass all tests that are given."""

    image_ids: Annotated[list[ImageId], Field(max_length=MAX_IMAGE_IDS), FailFast()] = Field(
        [], description="Only these images; none of all when the list is given and empty."
    )

    def to_filter(self) -> ImageFilter | None:
        """Return the filter, None when it leaves nothing out."""
        is_given = "image_ids" in self.model_fields_set
        return self._filter(tuple(sorted(set(self.image_ids))) if is_given else None) or None


class TermDocument(BaseModel):
    """A text or an indexed image, and how much it counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: QueryText | None = Field(None, description="Either this, or `image_id`.")
    image_id: ImageId | None = None
    weight: Cosine = Field(1.0, description="Not 0; below 0 asks for what is unlike it.")

    def to_term(self) -> Term | None:
        """Return the term, None unless it has a text or an image and not both."""
        if (self.text is None) == (self.image_id is None):
            return None
        if self.text is not None:
            return TextTerm(self.text, self.weight)
        return ImageTerm(self.image_id or "", self.weight)


class PictureQuery(FilterFields):
    """What is asked beside the picture."""

    top_k: int = Field(10, ge=1, le=1000, description="How many images.")
    min_score: Cosine | None = Field(None, description="Results below are left out.")
    cursor: CursorText | None = Field(None, description="The `next_cursor` of the page before.")
    collapse_duplicates: bool = Field(False, description="Show near-duplicates once.")
    duplicate_score: DuplicateScore = Field(
        DEFAULT_DUPLICATE_SCORE, description="From which cosine on images are near-duplicates."
    )
    index_prefix: AbsolutePath | None = Field(None, description="By default the server's index.")


def _nanoseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    since = moment - _EPOCH
    nanoseconds = ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
    return max(-_INT64_MAX, min(_INT64_MAX, nanoseconds))
