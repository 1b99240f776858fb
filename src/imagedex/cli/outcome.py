"""How a job ended, told to the user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from imagedex.cli.failures import CommandFailed
from imagedex.cli.output import Output
from imagedex.cli.text import count_of, duration

if TYPE_CHECKING:
    from imagedex.client import Failure, ImagedexClient, JobState

# Enough to see what goes wrong; `imagedex jobs failures` lists them all.
_EXAMPLES_PER_REASON = 3
_FAILURES_READ = 10_000


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """The last state of a job with its failures."""

    state: JobState
    failures: tuple[Failure, ...]  # The first ten thousand of them, by path.

    @property
    def by_reason(self) -> dict[str, int]:
        """How many of the failures have which reason, the most frequent first."""
        return dict(Counter(failure.reason for failure in self.failures).most_common())

    @property
    def seconds(self) -> float | None:
        """How long the job ran, or None when it never did."""
        if self.state.started_at is None or self.state.finished_at is None:
            return None
        return (self.state.finished_at - self.state.started_at).total_seconds()


def fetch_outcome(client: ImagedexClient, state: JobState) -> JobOutcome:
    """Return a job's outcome with its failures."""
    failures: tuple[Failure, ...] = ()
    if state.progress.failed_images:
        failures = tuple(islice(client.all_failures(state.job_id), _FAILURES_READ))
    return JobOutcome(state, failures)


def write_outcome(
    output: Output, outcome: JobOutcome, *, also: Mapping[str, Any] | None = None
) -> None:
    """Write what came of the job, with ``also`` as further members of a JSON document.

    Raises CommandFailed when it did not complete.
    """
    if output.as_json:
        output.document(
            {
                **outcome.state.model_dump(mode="json"),
                "seconds": outcome.seconds,
                "failures_by_reason": outcome.by_reason,
                **(also or {}),
            }
        )
    else:
        _write_counts(output, outcome)
        _write_failures(output, outcome)
    _require_completed(outcome.state)


def _write_counts(output: Output, outcome: JobOutcome) -> None:
    progress = outcome.state.progress
    settled = progress.processed_images - progress.failed_images
    parts = [f"{count_of(settled, 'image')} up to date"]
    if progress.failed_images:
        parts.append(f"{progress.failed_images:,} failed")
    if (found := outcome.state.findings) is not None:
        if gone := found.moved + found.removed:
            parts.append(f"{gone:,} gone")
        if found.unsettled:
            parts.append(f"{found.unsettled:,} still being written (index again)")
    took = "" if outcome.seconds is None else f" in {duration(outcome.seconds)}"
    output.line(f"{', '.join(parts)}{took}.")


def _write_failures(output: Output, outcome: JobOutcome) -> None:
    if not outcome.failures:
        return
    for reason, count in outcome.by_reason.items():
        output.line(f"  {reason}: {count_of(count, 'image')}")
        alike = (failure for failure in outcome.failures if failure.reason == reason)
        for failure in islice(alike, _EXAMPLES_PER_REASON):
            output.line(f"    {failure.image_path}: {failure.detail}")
        if count > _EXAMPLES_PER_REASON:
            output.line("    …")
    output.note(f"All failures: imagedex jobs failures {outcome.state.job_id}")


def _require_completed(state: JobState) -> None:
    if state.status == "completed":
        return
    reason = f": {state.error}" if state.error else "."
    remedy = f" Try again: imagedex jobs retry {state.job_id}"
    if state.status == "paused":
        remedy = (
            f" To remove them: imagedex jobs confirm {state.job_id}. To keep them: imagedex jobs "
            f"refuse {state.job_id}"
        )
    raise CommandFailed(f"Job {state.job_id} is {state.status}{reason}{remedy}")
