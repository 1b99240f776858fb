"""The image roots of a run on the local home, where the operator names them by the command."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagedex.app import build_application
from imagedex.jobs import JobKind, JobStatus

if TYPE_CHECKING:
    from imagedex.indexing import Indexing
    from imagedex.jobs import Job
    from imagedex.settings import Settings

_JOBS_OF_A_PAGE = 100


def with_local_roots(
    settings: Settings, named: Sequence[Path], *, with_indexed: bool = False
) -> Settings:
    """Return the settings with image roots that cover the directories named.

    Roots that are set are kept: they are the operator's own rule. Otherwise the roots are the
    directories named, and those of jobs that an earlier run left unfinished. Those go on in
    this run, were allowed when they were requested, and would fail if they no longer were.
    ``with_indexed`` adds those of all jobs there ever were, for what reads all indexed images;
    so does a change of model that is unfinished.
    """
    if settings.image_roots:
        return settings
    roots = dict.fromkeys([*named, *_directories(settings, with_indexed=with_indexed)])
    return settings.model_copy(update={"image_roots": tuple(roots)})


def _directories(settings: Settings, *, with_indexed: bool) -> list[Path]:
    application = build_application(settings, run_jobs=False)
    try:
        application.start()
        unfinished = [
            job
            for status in (JobStatus.QUEUED, JobStatus.RUNNING)
            for job in _jobs_with_status(application.indexing, status)
        ]
        if with_indexed or any(job.kind is JobKind.CHANGE_MODEL for job in unfinished):
            jobs = list(_jobs_with_status(application.indexing, None))
        else:
            jobs = unfinished
        return [directory for job in jobs for directory in _directories_of(job)]
    finally:
        application.close()


def _jobs_with_status(indexing: Indexing, status: JobStatus | None) -> Iterator[Job]:
    cursor: str | None = None
    while True:
        page = indexing.list_jobs(status=status, limit=_JOBS_OF_A_PAGE, cursor=cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _directories_of(job: Job) -> list[Path]:
    directory = job.request.get("image_dir", job.request.get("root"))
    files = job.request.get("image_paths", ())
    return [Path(directory)] if directory is not None else [Path(file).parent for file in files]
