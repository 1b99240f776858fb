"""A job that a command has asked for: its receipt, its progress, its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagedex.cli.output import Output

if TYPE_CHECKING:
    from imagedex.client import ImagedexClient, JobState, NotifyReceipt, TriggerReceipt


def write_receipt(output: Output, receipt: TriggerReceipt | NotifyReceipt) -> None:
    """Write what a job that is left to the server is called."""
    if output.as_json:
        output.document(receipt)
    else:
        output.line(receipt.job_id)
        output.note(f"See how it fares: imagedex jobs show {receipt.job_id}")


def watch(output: Output, client: ImagedexClient, job_id: str) -> None:
    """Show a job's progress until it has ended, and then what came of it."""
    from imagedex.cli.outcome import fetch_outcome, write_outcome
    from imagedex.cli.progress import JobProgress

    try:
        with JobProgress(output.errors) as progress:
            state: JobState = client.wait(job_id, progress.show)
    except KeyboardInterrupt:
        output.note(_after_interrupt(job_id))
        raise
    write_outcome(output, fetch_outcome(client, state))


def _after_interrupt(job_id: str) -> str:
    from imagedex.cli.connection import is_remote

    if is_remote():
        return (
            f"The server goes on with job {job_id}. "
            f"To watch it: imagedex jobs show {job_id}. To stop it: imagedex jobs cancel {job_id}"
        )
    return "Stopping. What is done is kept; the same command goes on from there."
