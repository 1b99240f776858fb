"""What becomes of images whose files are gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagedex.core.errors import Conflict
from imagedex.indexing import RemovalRules
from imagedex.jobs import Job, JobStatus, ScanFindings
from support.controller import Controller

Make = Callable[[RemovalRules], Controller]

AT_ONCE = RemovalRules(grace_seconds=0, max_share=0.5)
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Controller] = []

    def make_controller(rules: RemovalRules) -> Controller:
        for former in made:
            former.close()
        controller = Controller(tmp_path, removal=rules)
        controller.runner.start()
        made.append(controller)
        return controller

    yield make_controller
    for controller in made:
        controller.close()


def paint_all(controller: Controller) -> None:
    for colour in COLOURS:
        controller.paint(f"{colour}.png", colour)
    controller.index()


def findings(controller: Controller, job: Job) -> ScanFindings:
    found = controller.indexing.status(job.job_id).findings
    assert found is not None
    return found


def wait_until_paused(controller: Controller, job: Job) -> Job:
    assert controller.wait(job).status is JobStatus.PAUSED
    return controller.jobs.get(job.job_id)


def test_a_gone_file_stays_for_its_time_of_grace_and_leaves_then(make: Make) -> None:
    controller = make(RemovalRules(grace_seconds=3600))
    paint_all(controller)
    (controller.photos / "red.png").unlink()
    for _ in range(2):
        found = findings(controller, controller.index())
        assert (found.missing, found.removed, found.unchanged) == (1, 0, 5)
    assert len(controller.find("any")) == 6
    controller = make(AT_ONCE)  # An hour has passed.
    found = findings(controller, controller.index())
    assert (found.missing, found.removed) == (1, 1)
    assert sorted(controller.find("any")) == sorted(f"{colour}.png" for colour in COLOURS[1:])
    assert findings(controller, controller.index()).missing == 0


def test_a_file_that_came_back_gets_a_new_time_of_grace(make: Make) -> None:
    controller = make(RemovalRules(grace_seconds=3600))
    paint_all(controller)
    index_id = controller.catalog.ensure_index(controller.prefix).index_id
    photos = str(controller.photos)
    red, away = controller.photos / "red.png", controller.photos.parent / "away.png"
    red.rename(away)
    controller.index()
    assert list(controller.catalog.missing_since(index_id, photos)) == [str(red)]
    away.rename(red)
    controller.index()
    assert controller.catalog.missing_since(index_id, photos) == {}


def test_a_moved_file_leaves_its_old_place_at_once(make: Make) -> None:
    controller = make(RemovalRules(grace_seconds=3600))
    paint_all(controller)
    folder = controller.photos / "folder"
    folder.mkdir()
    for colour in COLOURS:  # All of them, which would be far too many to remove.
        (controller.photos / f"{colour}.png").rename(folder / f"{colour}.png")
    found = findings(controller, controller.index())
    assert (found.added, found.missing, found.moved, found.removed) == (6, 6, 6, 0)
    paths = controller.queries.query(controller.prefix, "any", 100).results
    assert sorted(Path(hit.image_path).parent for hit in paths) == [folder] * 6
    assert controller.indexing.stats().num_images == 6


def test_one_of_two_copies_that_goes_is_no_move(make: Make) -> None:
    controller = make(RemovalRules(grace_seconds=3600))
    paint_all(controller)
    shutil.copy2(controller.photos / "red.png", controller.photos / "copy.png")
    controller.index()
    (controller.photos / "red.png").unlink()
    # A share of copies that is away must not take its images with it at once, and unasked.
    assert findings(controller, controller.index()).moved == 0
    assert sorted(controller.find("red", 2)) == ["copy.png", "red.png"]


@pytest.mark.parametrize("is_missing", [False, True])
def test_an_image_root_that_is_empty_or_missing_is_no_deletion(
    make: Make, is_missing: bool
) -> None:
    controller = make(RemovalRules(grace_seconds=0, max_share=1))
    paint_all(controller)
    job = controller.indexing.trigger(str(controller.photos))
    job = controller.wait(job)
    shutil.rmtree(controller.photos)
    if is_missing:
        with pytest.raises(Exception, match="mounted"):
            controller.indexing.trigger(str(controller.photos))
        return
    controller.photos.mkdir()
    for _ in range(2):
        found = findings(controller, controller.index())
        assert found.removed == 0
    assert len(controller.find("any")) == 6


def test_a_large_removal_pauses_and_what_is_new_is_indexed_all_the_same(make: Make) -> None:
    controller = make(AT_ONCE)
    paint_all(controller)
    for colour in COLOURS[:4]:
        (controller.photos / f"{colour}.png").unlink()
    controller.paint("new.png", "white")
    job = wait_until_paused(controller, controller.indexing.trigger(str(controller.photos)))
    assert job.error is not None
    assert "4 of the 7 images" in job.error
    assert "REMOVAL_SHARE" in job.error
    assert len(controller.find("any")) == 7
    assert controller.find("white", 1) == ["new.png"]
    # Whoever asks for the same again is shown the same question, and gets what has come since.
    controller.paint("later.png", "pink")
    again = controller.indexing.trigger(str(controller.photos))
    assert (again.job_id, again.status) == (job.job_id, JobStatus.PAUSED)

    controller.indexing.answer_removals(job.job_id, is_allowed=True)
    job = controller.wait(job)
    assert job.status is JobStatus.COMPLETED
    expected = ["later.png", "new.png", "orange.png", "purple.png"]
    assert sorted(controller.find("any")) == expected
    with pytest.raises(Conflict):
        controller.indexing.answer_removals(job.job_id, is_allowed=True)


def test_a_refused_removal_keeps_the_images_and_is_asked_anew_next_time(make: Make) -> None:
    controller = make(AT_ONCE)
    paint_all(controller)
    for colour in COLOURS[:4]:
        (controller.photos / f"{colour}.png").unlink()
    job = wait_until_paused(controller, controller.indexing.trigger(str(controller.photos)))
    controller.indexing.answer_removals(job.job_id, is_allowed=False)
    assert controller.wait(job).status is JobStatus.COMPLETED
    assert len(controller.find("any")) == 6
    wait_until_paused(controller, controller.indexing.trigger(str(controller.photos)))


def test_more_than_was_allowed_is_asked_again(make: Make) -> None:
    controller = make(AT_ONCE)
    paint_all(controller)
    for colour in COLOURS[:4]:
        (controller.photos / f"{colour}.png").unlink()
    job = wait_until_paused(controller, controller.indexing.trigger(str(controller.photos)))
    controller.catalog.missing_since(1, "/")
    with controller.database.transaction() as transaction:
        gone = [str(controller.photos / f"{colour}.png") for colour in COLOURS[:5]]
        controller.catalog.note_missing(transaction, 1, str(controller.photos), gone, now=0)
    (controller.photos / f"{COLOURS[4]}.png").unlink()
    controller.indexing.answer_removals(job.job_id, is_allowed=True)
    job = wait_until_paused(controller, job)
    assert job.error is not None
    assert "5 of the 6 images" in job.error


def test_a_paused_job_can_be_cancelled_and_survives_a_restart(make: Make) -> None:
    controller = make(AT_ONCE)
    paint_all(controller)
    for colour in COLOURS[:4]:
        (controller.photos / f"{colour}.png").unlink()
    job = wait_until_paused(controller, controller.indexing.trigger(str(controller.photos)))
    controller = make(AT_ONCE)
    assert controller.jobs.get(job.job_id).status is JobStatus.PAUSED
    assert controller.indexing.cancel(job.job_id).status is JobStatus.CANCELLED
    assert len(controller.find("any")) == 6


def test_files_of_other_directories_are_none_of_a_scans_business(make: Make) -> None:
    controller = make(AT_ONCE)
    for folder in ("a", "ab"):
        (controller.photos / folder).mkdir()
        for colour in COLOURS:
            controller.paint(f"{folder}/{colour}{folder}.png", colour)
    controller.paint("b.png", "white")
    controller.index()
    shutil.rmtree(controller.photos / "ab")
    job = controller.wait(controller.indexing.trigger(str(controller.photos / "a")))
    assert job.status is JobStatus.COMPLETED
    assert findings(controller, job).missing == 0
    assert len(controller.find("any")) == 13
