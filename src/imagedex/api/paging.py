"""Parameters of calls that return many things page by page."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from imagedex.jobs.records import JobStatus

MAX_LIMIT = 1000
# A cursor holds a path of up to 4096 bytes; JSON spends 6 characters on some of them, base64 a
# third more.
MAX_CURSOR_LENGTH = 32 * 1024


class PageQuery(BaseModel):
    """Which page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(50, ge=1, le=MAX_LIMIT, description="Entries of a page.")
    cursor: Annotated[str, Field(min_length=1, max_length=MAX_CURSOR_LENGTH)] | None = Field(
        None, description="The `next_cursor` of the page before."
    )


class JobsQuery(PageQuery):
    """Which jobs."""

    status: JobStatus | None = Field(None, description="Only jobs with this status.")
