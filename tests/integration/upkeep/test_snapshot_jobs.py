"""Snapshots of a server that runs: made, brought back and deleted while jobs go on."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from imagedex.core.errors import Conflict, CorruptIndex, InvalidRequest, LeaseLost, NotFound
from imagedex.jobs import Job, JobStatus
from imagedex.segments import DirectoryIndexFiles, Snapshot, snapshots
from imagedex.upkeep import Doctor, Snapshots, snapshot_jobs
from support.controller import Controller

NAMES = ["black.png", "blue.png", "green.png", "red.png", "white.png", "yellow.png"]


def _same(moment: datetime) -> datetime:
    return moment


def _complete(controller: Controller, job: Job) -> None:
    job = controller.wait(job)
    assert job.status is JobStatus.COMPLETED, job.error


def _create(controller: Controller, name: str | None = None) -> str:
    job, name = controller.snapshots.create(name)
    _complete(controller, job)
    return name


def _names(controller: Controller) -> list[str]:
    return [one.name for one in controller.snapshots.list() if isinstance(one, Snapshot)]


def _change(controller: Controller) -> None:
    """Bring an image in, take one out."""
    new = controller.paint("new.png", "pink")
    gone = controller.photos / "green.png"
    gone.unlink()
    _complete(controller, controller.indexing.notify([new, str(gone)])[0])


def _require_sound(controller: Controller) -> None:
    diagnosis = Doctor(
        DirectoryIndexFiles(controller.prefix),
        database=controller.database,
        catalog=controller.catalog,
        jobs=controller.jobs,
    ).examine()
    assert diagnosis.findings == ()


def test_a_server_goes_back_to_a_snapshot_and_on_from_there(controller: Controller) -> None:
    assert _create(controller, "kept") == "kept"
    _change(controller)
    before = controller.generation
    assert "green.png" not in controller.find("any")
    job = controller.snapshots.restore("kept")
    _complete(controller, job)
    assert controller.generation > before
    assert sorted(controller.find("any")) == NAMES
    assert controller.jobs.get(job.job_id).total_images == 6
    _require_sound(controller)
    # The lease of the next job is above what the return has published.
    controller.index()
    assert "new.png" in controller.find("any")
    controller.photos.joinpath("red.png").unlink()
    _complete(controller, controller.indexing.notify([str(controller.photos / "red.png")])[0])
    assert "red.png" not in controller.find("any")
    _complete(controller, controller.indexing.rebuild())
    _require_sound(controller)


def test_a_name_of_our_own_tells_time_and_generation(controller: Controller) -> None:
    name = _create(controller)
    assert name.endswith(f"-generation-{controller.generation}")
    assert _names(controller) == [name]
    controller.snapshots.delete(name)
    assert _names(controller) == []
    with pytest.raises(NotFound, match="no snapshot"):
        controller.snapshots.delete(name)


def test_what_cannot_be_is_refused_before_there_is_a_job(controller: Controller) -> None:
    _create(controller, "kept")
    with pytest.raises(Conflict, match="choose another name"):
        controller.snapshots.create("kept")
    with pytest.raises(InvalidRequest, match="cannot name a snapshot"):
        controller.snapshots.create("../kept")
    with pytest.raises(InvalidRequest, match="cannot name a snapshot"):
        controller.snapshots.restore("../kept")
    with pytest.raises(NotFound, match="no snapshot"):
        controller.snapshots.restore("other")
    (controller.prefix.with_name("index.snapshots") / "kept" / "snapshot.json").write_text("{")
    with pytest.raises(CorruptIndex, match="is damaged"):
        controller.snapshots.restore("kept")
    with pytest.raises(Conflict, match="choose another name"):
        controller.snapshots.create("kept")
    assert [type(one) for one in controller.snapshots.list()] == [CorruptIndex]


def test_a_snapshot_that_is_deleted_before_its_return_fails_the_job(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    _create(controller, "kept")
    before = controller.generation
    may_run = threading.Event()
    real = controller.jobs.lease_next

    def lease_next(owner: str, lanes: Any) -> Any:
        return real(owner, lanes) if may_run.is_set() else None

    monkeypatch.setattr(controller.jobs, "lease_next", lease_next)
    job = controller.snapshots.restore("kept")
    controller.snapshots.delete("kept")
    may_run.set()
    job = controller.wait(job)
    assert job.status is JobStatus.FAILED
    assert "no snapshot 'kept'" in str(job.error)
    assert controller.generation == before


def test_a_job_that_was_ended_after_its_snapshot_was_made_completes(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = controller.jobs.save_plan
    calls = 0

    def break_off_once(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("Here the process died.")
        real(*arguments, **options)

    monkeypatch.setattr(controller.jobs, "save_plan", break_off_once)
    assert _create(controller, "kept") == "kept"
    assert calls == 2
    assert _names(controller) == ["kept"]


def test_of_scheduled_snapshots_the_last_ones_stay(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    _create(controller, "a-by-hand")
    _create(controller, "z-by-hand")
    for day in range(1, 5):
        moment = datetime(2026, 1, day, tzinfo=UTC)
        monkeypatch.setattr(snapshot_jobs, "utc_now", partial(_same, moment))
        for new in controller.snapshots.scheduled():
            _complete(controller, controller.jobs.submit(new))
    assert sorted(_names(controller)) == [
        "a-by-hand",
        "scheduled-20260103T000000Z",
        "scheduled-20260104T000000Z",
        "z-by-hand",
    ]


def test_a_snapshot_that_is_being_made_can_be_cancelled(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = snapshots.link_or_copy
    jobs: list[Job] = []
    is_submitted = threading.Event()

    def cancel_and_go_on(*arguments: Any) -> None:
        assert is_submitted.wait(10)
        controller.indexing.cancel(jobs[0].job_id)
        real(*arguments)

    monkeypatch.setattr(snapshots, "link_or_copy", cancel_and_go_on)
    jobs.append(controller.snapshots.create("kept")[0])
    is_submitted.set()
    assert controller.wait(jobs[0]).status is JobStatus.CANCELLED
    monkeypatch.undo()
    assert _names(controller) == []
    folder = controller.prefix.parent
    assert [path for path in folder.rglob("*kept*") if path.is_dir()] == []
    assert _create(controller, "kept") == "kept"


def test_a_lease_that_ran_out_while_a_snapshot_was_made_is_not_taken_for_its_name(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = controller.snapshots.create("kept")
    _complete(controller, job)
    controller.snapshots.delete("kept")

    def lose_the_lease(*_: Any, **__: Any) -> Any:
        raise LeaseLost("It was not renewed in time.")

    monkeypatch.setattr(Snapshots, "create", lose_the_lease)
    run: Any = SimpleNamespace(lease=SimpleNamespace(job=job), require_going_on=None)
    with pytest.raises(LeaseLost):
        controller.snapshots.run_snapshot(run)
