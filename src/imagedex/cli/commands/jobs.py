"""``imagedex jobs``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from imagedex.cli.invocation import JsonOption, invocation_of
from imagedex.cli.output import Output

if TYPE_CHECKING:
    from imagedex.client import JobState

jobs = typer.Typer(help="List, show, cancel and retry jobs.", rich_markup_mode=None)

JobId = Annotated[str, typer.Argument(help="The job's id, such as idx_20251114_123456_7f3a.")]


class StatusName(StrEnum):
    """The states of a job, as words of ``--status``."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


StatusOption = Annotated[
    StatusName | None, typer.Option("--status", help="Only jobs in this state.")
]
LimitOption = Annotated[
    int, typer.Option("--limit", min=1, max=1000, help="How many to list at most.")
]


@jobs.callback(invoke_without_command=True)
def list_by_default(context: typer.Context, as_json: JsonOption = False) -> None:
    """List, show, cancel and retry jobs. Without a command: list them."""
    if context.invoked_subcommand is None:
        list_jobs(context, as_json=as_json)
    elif as_json:
        raise typer.BadParameter(
            f"give it after the command: imagedex jobs {context.invoked_subcommand} --json",
            param_hint="'--json'",
        )


@jobs.command("list")
def list_jobs(
    context: typer.Context,
    status: StatusOption = None,
    limit: LimitOption = 20,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    from imagedex.cli.connection import connect

    output = Output(as_json=as_json)
    with connect(invocation_of(context)) as client:
        page = client.jobs(status=None if status is None else status.value, limit=limit)
    if output.as_json:
        output.document(page)
        return
    rows = [
        (
            job.job_id,
            job.status,
            job.kind,
            f"{job.images_count:,}",
            job.created_at.isoformat(sep=" ", timespec="seconds"),
        )
        for job in page.jobs
    ]
    output.table(("job", "status", "kind", "images", "created"), rows)
    if page.next_cursor is not None:
        output.note(f"{page.total - len(page.jobs):,} older ones; see more with --limit.")


@jobs.command("show")
def show_job(context: typer.Context, job_id: JobId, as_json: JsonOption = False) -> None:
    """Show one job with its progress and its workers."""
    from imagedex.cli.connection import connect

    with connect(invocation_of(context)) as client:
        state = client.status(job_id)
    _write_state(Output(as_json=as_json), state)


@jobs.command("cancel")
def cancel_job(context: typer.Context, job_id: JobId, as_json: JsonOption = False) -> None:
    """Cancel a job. A running one ends after the batch at hand; what is indexed stays indexed."""
    from imagedex.cli.connection import connect

    with connect(invocation_of(context)) as client:
        client.cancel(job_id)
        state = client.status(job_id)
    _write_state(Output(as_json=as_json), state)


@jobs.command("retry")
def retry_job(context: typer.Context, job_id: JobId, as_json: JsonOption = False) -> None:
    """Queue a job again, for what failed in it or was not done."""
    from imagedex.cli.connection import connect, is_remote

    output = Output(as_json=as_json)
    with connect(invocation_of(context)) as client:
        client.retry(job_id)
        state = client.status(job_id)
    _write_state(output, state)
    if not is_remote():
        output.note("It runs when the server does, or with the next: imagedex index")


@jobs.command("confirm")
def confirm_job(context: typer.Context, job_id: JobId, as_json: JsonOption = False) -> None:
    """Let a job that is paused because many images are gone remove them from the index."""
    _answer(context, job_id, as_json, is_allowed=True)


@jobs.command("refuse")
def refuse_job(context: typer.Context, job_id: JobId, as_json: JsonOption = False) -> None:
    """Let a job that is paused because many images are gone go on and keep them."""
    _answer(context, job_id, as_json, is_allowed=False)


@jobs.command("failures")
def list_failures(
    context: typer.Context,
    job_id: JobId,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List the images that a job could not index, and why."""
    from imagedex.cli.connection import connect

    output = Output(as_json=as_json)
    with connect(invocation_of(context)) as client:
        page = client.failures(job_id, limit=limit)
    if output.as_json:
        output.document(page)
        return
    rows = [(failure.reason, failure.image_path, failure.detail) for failure in page.failures]
    output.table(("reason", "path", "detail"), rows)
    if page.next_cursor is not None:
        output.note(f"{page.total - len(page.failures):,} more; see them with --limit.")


def _answer(context: typer.Context, job_id: str, as_json: bool, *, is_allowed: bool) -> None:
    from imagedex.cli.connection import connect, is_remote

    output = Output(as_json=as_json)
    with connect(invocation_of(context)) as client:
        (client.confirm if is_allowed else client.refuse)(job_id)
        state = client.status(job_id)
    _write_state(output, state)
    if not is_remote():
        output.note("It runs when the server does, or with the next: imagedex index")


def _write_state(output: Output, state: JobState) -> None:
    if output.as_json:
        output.document(state)
        return
    progress = state.progress
    fields = [
        ("job", state.job_id),
        ("status", state.status),
        ("kind", state.kind),
        (
            "progress",
            (
                f"{progress.processed_images:,} of {progress.total_images:,} images "
                f"({progress.percent_complete:.0f} %), {progress.failed_images:,} failed"
            ),
        ),
    ]
    for name, moment in (
        ("created", state.created_at),
        ("started", state.started_at),
        ("finished", state.finished_at),
        ("expected end", state.estimated_completion),
    ):
        if moment is not None:
            fields.append((name, moment.isoformat(sep=" ", timespec="seconds")))
    if state.findings is not None:
        found = state.findings.model_dump()
        fields.append(("found", ", ".join(f"{n:,} {name}" for name, n in found.items() if n)))
    if state.error:
        fields.append(("error", state.error))
    for worker in state.workers:
        share = f"{worker.status}, {worker.images_processed:,} images"
        if worker.images_per_second is not None:
            share += f", {worker.images_per_second:,.1f} images/s"
        fields.append((f"worker {worker.worker_id}", f"on {worker.host}: {share}"))
    output.fields(fields)
