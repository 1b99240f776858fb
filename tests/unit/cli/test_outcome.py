"""What is told of a job that has ended."""

from __future__ import annotations

import json

import pytest

from imagedex.cli.failures import CommandFailed
from imagedex.cli.outcome import JobOutcome, write_outcome
from imagedex.cli.output import Output
from support.job_states import failure, job_state


def test_failed_images_are_told_by_reason_with_examples_and_are_no_failure_of_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failures = (
        *(failure(f"/photos/{number}.png") for number in range(5)),
        failure("/photos/x\x1b[0m.jpg", "damaged", "Not a\nJPEG."),
    )
    state = job_state(status="completed", total=1200, processed=1200, failed=6, seconds=12.34)

    write_outcome(Output(), JobOutcome(state, failures))

    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "1,194 images up to date, 6 failed in 12.3 s.",
        "  empty: 5 images",
        "    /photos/0.png: It has no bytes.",
        "    /photos/1.png: It has no bytes.",
        "    /photos/2.png: It has no bytes.",
        "    …",
        "  damaged: 1 image",
        r"    /photos/x\x1b[0m.jpg: Not a\nJPEG.",
    ]
    assert captured.err == "All failures: imagedex jobs failures idx_20251114_123456_7f3a\n"


def test_json_holds_the_state_and_the_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    state = job_state(status="completed", total=3, processed=3, failed=1, seconds=2)

    write_outcome(Output(as_json=True), JobOutcome(state, (failure("/photos/a.png"),)))

    document = json.loads(capsys.readouterr().out)
    assert document["status"] == "completed"
    assert document["progress"]["failed_images"] == 1
    assert document["failures_by_reason"] == {"empty": 1}
    assert document["seconds"] == 2.0


@pytest.mark.parametrize(
    ("status", "hint"),
    [("failed", "jobs retry"), ("cancelled", "jobs retry"), ("paused", "disk full")],
)
def test_a_job_that_did_not_complete_fails_the_command(status: str, hint: str) -> None:
    state = job_state(status=status, total=3, processed=1, error="disk full", seconds=1)

    with pytest.raises(CommandFailed, match=f"is {status}: disk full") as raised:
        write_outcome(Output(as_json=True), JobOutcome(state, ()))
    assert hint in str(raised.value)
