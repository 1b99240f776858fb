"""Parameters of calls that return many things page by page."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from imagedex.jobs.records import JobStatus

MAX_LIMIT = 1000


class PageQuery(BaseModel):
    """Which page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(50, ge=1, le=MAX_LIMIT, description="Entries of a page.")
    cursor: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        None, description="The `next_cursor` of the page before."
    )


class JobsQuery(PageQuery):
    """Which jobs."""

    status: JobStatus | None = Field(None, description="Only jobs with this status.")
