"""The way of images into an index, in one process."""

import os
import shutil
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imagedex.core.errors import EngineError, FingerprintMismatch, InvalidRequest, OutsideImageRoots
from imagedex.engine import Seat
from imagedex.indexing import ChunkTask
from imagedex.jobs import JobStatus, Priority
from imagedex.testing.colour_model import ColourModel
from imagedex.testing.thread_engine import ThreadEngine
from support.controller import Controller


def test_a_folder_is_indexed_and_found_by_description(controller: Controller) -> None:
    for colour in ("red", "green", "blue"):
        controller.paint(f"{colour}.png", colour)
    job = controller.index()
    assert (job.total_images, job.processed_images, job.failed_images) == (3, 3, 0)
    assert controller.find("something red", 1) == ["red.png"]
    assert controller.find("the blue one", 1) == ["blue.png"]
    assert sorted(controller.find("any")) == ["blue.png", "green.png", "red.png"]


def test_a_broken_file_fails_alone_and_is_listed_with_its_reason(controller: Controller) -> None:
    controller.paint("red.png", "red")
    (controller.photos / "empty.png").touch()
    (controller.photos / "text.jpg").write_text("not an image")
    job = controller.index()
    assert (job.total_images, job.processed_images, job.failed_images) == (3, 3, 2)
    failures = controller.indexing.failures(job.job_id, limit=10, cursor=None).items
    assert [(Path(f.image_path).name, f.reason) for f in failures] == [
        ("empty.png", "empty"),
        ("text.jpg", "not_an_image"),
    ]
    assert controller.find("red") == ["red.png"]
    assert controller.indexing.stats().num_failed == 2


def test_unchanged_photos_are_not_embedded_again(controller: Controller) -> None:
    controller.paint("red.png", "red")
    (controller.photos / "empty.png").touch()
    controller.index()
    before = controller.generation
    job = controller.index()
    assert (job.total_images, job.processed_images, job.failed_images) == (2, 2, 1)
    assert controller.generation == before


def test_a_changed_photo_is_found_once_under_its_new_looks(controller: Controller) -> None:
    for number in range(8):
        controller.paint(f"{number}.png", "green")
    controller.index()
    controller.paint("4.png", "red")
    os.utime(controller.photos / "4.png", ns=(1, 1))
    controller.index()
    assert controller.find("red", 1) == ["4.png"]
    assert sorted(controller.find("green")) == [f"{number}.png" for number in range(8)]
    assert controller.indexing.stats().num_images == 8


def test_a_forced_reindex_finds_each_photo_once(controller: Controller) -> None:
    for number in range(8):
        controller.paint(f"{number}.png", "green")
    controller.index()
    job = controller.index(force=True)
    assert (job.total_images, job.processed_images) == (8, 8)
    assert sorted(controller.find("green")) == [f"{number}.png" for number in range(8)]


def test_a_changed_photo_that_is_broken_stays_findable_in_its_old_version(
    controller: Controller,
) -> None:
    controller.paint("red.png", "red")
    controller.index()
    (controller.photos / "red.png").write_bytes(b"")
    job = controller.index()
    assert job.failed_images == 1
    assert controller.find("red") == ["red.png"]
    stats = controller.indexing.stats()
    assert (stats.num_images, stats.num_failed) == (1, 1)


def test_a_photo_that_is_mended_is_no_failure_any_more(controller: Controller) -> None:
    (controller.photos / "red.png").touch()
    controller.index()
    controller.paint("red.png", "red")
    controller.index()
    stats = controller.indexing.stats()
    assert (stats.num_images, stats.num_failed) == (1, 0)


class TestNotify:
    """A notified path may be new, changed or gone."""

    def test_a_failed_photo_that_is_gone_is_no_failure_any_more(
        self, controller: Controller
    ) -> None:
        controller.paint("red.png", "red")
        broken = controller.photos / "broken.png"
        broken.touch()
        controller.index()
        broken.unlink()
        job, _ = controller.indexing.notify([str(broken)])
        assert controller.wait(job).failed_images == 0
        assert controller.indexing.stats().num_failed == 0

    def test_new_changed_and_gone_photos(self, controller: Controller) -> None:
        changed = controller.paint("changed.png", "green")
        gone = controller.paint("gone.png", "blue")
        controller.paint("same.png", "yellow")
        controller.index()
        controller.paint("changed.png", "red")
        new = controller.paint("new.png", "purple")
        Path(gone).unlink()
        job, _ = controller.indexing.notify([new, changed, gone])
        job = controller.wait(job)
        assert job.status is JobStatus.COMPLETED
        assert (job.total_images, job.processed_images, job.failed_images) == (3, 3, 0)
        assert sorted(controller.find("any")) == ["changed.png", "new.png", "same.png"]
        assert controller.find("red", 1) == ["changed.png"]
        assert controller.find("purple", 1) == ["new.png"]

    def test_an_estimate_comes_with_the_second_job(self, controller: Controller) -> None:
        photo = controller.paint("red.png", "red")
        job, seconds = controller.indexing.notify([photo])
        assert seconds is None
        controller.wait(job)
        _, seconds = controller.indexing.notify([photo])
        assert seconds is not None
        assert seconds >= 0

    def test_a_path_outside_the_roots_is_refused(self, controller: Controller) -> None:
        with pytest.raises(OutsideImageRoots):
            controller.indexing.notify(["/etc/passwd"])


def test_a_directory_that_is_not_there_is_refused_at_once(controller: Controller) -> None:
    with pytest.raises(InvalidRequest):
        controller.indexing.trigger(str(controller.photos / "nowhere"))


def test_an_index_of_another_model_is_refused_and_stays_as_it_was(
    controller: Controller, tmp_path: Path
) -> None:
    controller.paint("red.png", "red")
    controller.index()
    controller.close()
    other = Controller(tmp_path, model=ColourModel(version=2))
    other.runner.start()
    try:
        other.paint("blue.png", "blue")
        job = other.wait(other.indexing.trigger(str(other.photos)))
        assert job.status is JobStatus.FAILED
        assert "colours-1" in (job.error or "")
        assert "colours-2" in (job.error or "")
        with pytest.raises(FingerprintMismatch):
            other.find("red")
        assert other.indexing.stats().num_images == 1
    finally:
        other.close()


class TestReconciling:
    """The catalog follows the index's files, whichever of the two went back in time."""

    def test_a_crash_between_current_and_the_database_neither_loses_nor_doubles(
        self, tmp_path: Path
    ) -> None:
        first = Controller(tmp_path)
        for number in range(8):
            first.paint(f"{number}.png", "green")
        first.runner.start()
        first.index()
        first.paint("4.png", "red")
        first.close()
        shutil.copy(first.database_file, tmp_path / "before.db")
        second = Controller(tmp_path)
        second.runner.start()
        second.index(force=True)
        after = second.generation
        second.close()
        # The database is back where it was, as if its transactions had never happened.
        shutil.copy(tmp_path / "before.db", first.database_file)
        third = Controller(tmp_path)
        third.publisher.reconcile(third.prefix)
        third.runner.start()
        try:
            assert third.generation == after
            job = third.index()
            assert job.processed_images == 8
            assert third.generation == after
            assert sorted(third.find("any")) == [f"{number}.png" for number in range(8)]
            third.index(force=True)
            assert sorted(third.find("any")) == [f"{number}.png" for number in range(8)]
        finally:
            third.close()

    def test_a_lost_database_is_filled_again_from_the_files(self, tmp_path: Path) -> None:
        first = Controller(tmp_path)
        gone = first.paint("gone.png", "blue")
        for number in range(4):
            first.paint(f"{number}.png", "green")
        first.runner.start()
        first.index()
        Path(gone).unlink()
        first.wait(first.indexing.notify([gone])[0])
        first.close()
        for file in tmp_path.glob("imagedex.db*"):
            file.unlink()
        second = Controller(tmp_path)
        second.runner.start()
        try:
            before = second.generation
            second.index()
            assert second.generation == before
            assert second.catalog.counts(1).indexed == 4
            second.index(force=True)
            assert sorted(second.find("any")) == [f"{number}.png" for number in range(4)]
        finally:
            second.close()

    @pytest.mark.parametrize("force", [False, True])
    def test_an_index_whose_storage_is_gone_is_not_begun_anew(
        self, tmp_path: Path, force: bool
    ) -> None:
        first = Controller(tmp_path)
        first.paint("red.png", "red")
        first.runner.start()
        first.index()
        first.close()
        first.prefix.rename(tmp_path / "unmounted")
        second = Controller(tmp_path)
        second.runner.start()
        try:
            job = second.indexing.trigger(str(second.photos), force_reindex=force)
            assert "Mount its storage" in second.wait_for_error(job)
            assert not second.prefix.exists()
            (tmp_path / "unmounted").rename(second.prefix)
            assert second.wait(job).status is JobStatus.COMPLETED
            assert second.find("red") == ["red.png"]
        finally:
            second.close()

    def test_a_generation_that_was_not_announced_before_a_crash_is_served_after_it(
        self, tmp_path: Path
    ) -> None:
        first = Controller(tmp_path)
        first.paint("red.png", "red")
        first.runner.start()
        first.index()
        first.close()
        shutil.copy(first.database_file, tmp_path / "before.db")
        second = Controller(tmp_path)
        second.runner.start()
        second.paint("blue.png", "blue")
        second.index()
        second.close()
        third = Controller(tmp_path)
        assert third.find("any") == ["blue.png", "red.png"]
        third.close()
        shutil.copy(tmp_path / "before.db", first.database_file)
        fourth = Controller(tmp_path)
        served: list[Path] = []
        fourth.announced = served.append
        fourth.publisher.reconcile(fourth.prefix)
        fourth.close()
        assert served == [fourth.prefix]


class TestOrder:
    """What was read earlier never comes back over what was read later."""

    def test_a_picture_that_waits_to_be_published_does_not_replace_a_newer_one(
        self, tmp_path: Path
    ) -> None:
        controller = Controller(tmp_path)
        try:
            photo = controller.paint("photo.png", "green")
            early = controller.indexing.trigger(str(controller.photos))
            controller.embed_without_publishing(early)
            controller.paint("photo.png", "red")
            late, _ = controller.indexing.notify([photo], priority=Priority.HIGH)
            controller.runner.start()
            assert controller.wait(late).status is JobStatus.COMPLETED
            assert controller.wait(early).status is JobStatus.COMPLETED
            assert controller.score("photo.png", "red") > 0.9
            assert controller.find("any") == ["photo.png"]
        finally:
            controller.close()

    def test_a_removal_that_waits_keeps_a_file_that_is_back(self, tmp_path: Path) -> None:
        controller = Controller(tmp_path)
        try:
            photo = controller.paint("photo.png", "green")
            job = controller.indexing.trigger(str(controller.photos))
            controller.embed_without_publishing(job)
            Path(photo).unlink()
            early, _ = controller.indexing.notify([photo], priority=Priority.LOW)
            controller.plan_removal_without_publishing(early, photo)
            controller.paint("photo.png", "green")
            controller.runner.start()
            for each in (job, early):
                assert controller.wait(each).status is JobStatus.COMPLETED
            assert controller.find("any") == ["photo.png"]
        finally:
            controller.close()

    def test_a_removal_that_waits_does_not_remove_what_came_back(self, tmp_path: Path) -> None:
        controller = Controller(tmp_path)
        try:
            photo = controller.paint("photo.png", "green")
            other = controller.paint("other.png", "blue")
            job = controller.indexing.trigger(str(controller.photos))
            controller.embed_without_publishing(job)
            Path(photo).unlink()
            early, _ = controller.indexing.notify([photo], priority=Priority.LOW)
            controller.plan_removal_without_publishing(early, photo)
            controller.paint("photo.png", "red")
            late, _ = controller.indexing.notify([photo, other], priority=Priority.HIGH)
            controller.runner.start()
            for each in (late, early, job):
                assert controller.wait(each).status is JobStatus.COMPLETED
            assert sorted(controller.find("any")) == ["other.png", "photo.png"]
            assert controller.score("photo.png", "red") > 0.9
        finally:
            controller.close()

    def test_a_removal_that_waits_keeps_an_image_whose_share_has_gone(self, tmp_path: Path) -> None:
        controller = Controller(tmp_path)
        try:
            photo = controller.paint("photo.png", "green")
            controller.paint("other.png", "blue")
            job = controller.indexing.trigger(str(controller.photos))
            controller.embed_without_publishing(job)
            Path(photo).unlink()
            early, _ = controller.indexing.notify([photo], priority=Priority.LOW)
            controller.plan_removal_without_publishing(early, photo)
            controller.photos.rename(tmp_path / "away")
            controller.photos.mkdir()  # What an unmounted share leaves.
            controller.runner.start()
            for each in (job, early):
                assert controller.wait(each).status is JobStatus.COMPLETED
            assert sorted(controller.find("any")) == ["other.png", "photo.png"]
            controller.photos.rmdir()
            (tmp_path / "away").rename(controller.photos)
            assert controller.wait(controller.indexing.notify([photo])[0]).failed_images == 0
            assert controller.find("any") == ["other.png"]
        finally:
            controller.close()


class FailingChunk(ThreadEngine):
    """An engine on which the chunk that holds a certain image always fails."""

    failing = "failing.png"

    def submit(self, function: Any, payload: Any, *, seat: Seat | None = None) -> Future[Any]:
        if isinstance(payload, ChunkTask) and any(
            path.endswith(self.failing) for path in payload.image_paths
        ):
            future: Future[Any] = Future()
            future.set_exception(EngineError("This chunk cannot be run."))
            if seat is not None:
                seat.release()
            return future
        return super().submit(function, payload, seat=seat)


def test_a_chunk_that_cannot_be_run_keeps_no_other_from_being_published(
    tmp_path: Path,
) -> None:
    controller = Controller(tmp_path, chunk_images=1, engine=FailingChunk())
    try:
        controller.paint("failing.png", "red")
        for number in range(8):
            controller.paint(f"{number}.png", "green")
        job = controller.indexing.trigger(str(controller.photos))
        controller.runner.start()
        assert "cannot be run" in controller.wait_for_error(job)
        assert sorted(controller.find("any")) == [f"{number}.png" for number in range(8)]
    finally:
        controller.close()


def test_a_directory_that_cannot_be_read_is_a_failure_of_the_job_but_no_failed_image(
    controller: Controller,
) -> None:
    controller.paint("red.png", "red")
    (controller.photos / os.fsdecode(b"n\xe9e")).mkdir()
    job = controller.index()
    assert job.failed_images == 1
    assert controller.indexing.stats().num_failed == 0


def _fill_with_slow_pictures(controller: Controller, count: int) -> None:
    picture = Image.effect_noise((800, 800), 50).convert("RGB")
    first = controller.photos / "00.png"
    picture.save(first)
    for number in range(1, count):
        shutil.copy(first, controller.photos / f"{number:02}.png")


def test_a_cancelled_job_keeps_what_it_has_embedded(controller: Controller) -> None:
    _fill_with_slow_pictures(controller, 30)
    job = controller.indexing.trigger(str(controller.photos))
    while controller.jobs.get(job.job_id).processed_images == 0:
        assert not controller.jobs.get(job.job_id).status.is_final
    controller.indexing.cancel(job.job_id)
    job = controller.wait(job)
    assert job.status is JobStatus.CANCELLED
    assert 0 < job.processed_images < 30
    assert len(controller.find("any")) == job.processed_images
    controller.indexing.retry(job.job_id)
    job = controller.wait(job)
    assert job.status is JobStatus.COMPLETED
    assert len(set(controller.find("any"))) == len(controller.find("any")) == 30


def test_a_job_of_high_priority_goes_before_the_rest_of_a_running_one(
    controller: Controller,
) -> None:
    _fill_with_slow_pictures(controller, 30)
    long = controller.indexing.trigger(str(controller.photos), priority=Priority.LOW)
    while controller.jobs.get(long.job_id).processed_images == 0:
        assert not controller.jobs.get(long.job_id).status.is_final
    urgent, _ = controller.indexing.notify(
        [controller.paint("urgent.png", "red")], priority=Priority.HIGH
    )
    urgent = controller.wait(urgent)
    assert urgent.status is JobStatus.COMPLETED
    assert not controller.jobs.get(long.job_id).status.is_final
    assert controller.find("red", 1) == ["urgent.png"]
    assert controller.wait(long).status is JobStatus.COMPLETED
    assert len(controller.find("any")) == 31


def test_a_part_file_that_was_lost_is_made_again(tmp_path: Path) -> None:
    controller = Controller(tmp_path)
    try:
        for number in range(4):
            controller.paint(f"{number}.png", "green")
        job = controller.indexing.trigger(str(controller.photos))
        controller.embed_without_publishing(job)
        for part in controller.prefix.rglob("parts/*/*"):
            part.unlink()
        controller.runner.start()
        assert controller.wait(job).status is JobStatus.COMPLETED
        assert sorted(controller.find("green")) == [f"{number}.png" for number in range(4)]
    finally:
        controller.close()


def test_a_notified_file_that_was_being_written_is_read_again(tmp_path: Path) -> None:
    controller = Controller(tmp_path, settle_seconds=1.0)
    controller.runner.start()
    try:
        whole = Path(controller.paint("whole.png", "red"))
        growing = controller.photos / "growing.png"
        growing.write_bytes(whole.read_bytes()[:40])
        job, _ = controller.indexing.notify([str(growing), str(whole)])
        while not controller.indexing.failures(job.job_id, limit=1, cursor=None).items:
            time.sleep(0.01)
        shutil.copyfile(whole, tmp_path / "complete.png")
        (tmp_path / "complete.png").rename(growing)
        job = controller.wait(job)
        assert (job.status, job.failed_images) == (JobStatus.COMPLETED, 0)
        assert sorted(controller.find("red")) == ["growing.png", "whole.png"]
    finally:
        controller.close()


def test_a_notified_file_that_stays_broken_fails_after_three_attempts(tmp_path: Path) -> None:
    controller = Controller(tmp_path, settle_seconds=0.05)
    controller.runner.start()
    try:
        broken = controller.photos / "broken.png"
        broken.write_bytes(b"no picture")
        job, _ = controller.indexing.notify([str(broken)])
        job = controller.wait(job)
        assert (job.status, job.processed_images, job.failed_images) == (JobStatus.COMPLETED, 1, 1)
        (failure,) = controller.indexing.failures(job.job_id, limit=9, cursor=None).items
        assert (failure.reason, failure.attempts) == ("not_an_image", 3)
    finally:
        controller.close()


class GroupNotes(ThreadEngine):
    """An engine that notes which chunks had to stay together."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[str | None] = []

    def reserve(
        self, *, group: str | None = None, alone: bool = False, apart_from: str | None = None
    ) -> Future[Seat]:
        self.groups.append(group)
        return super().reserve(group=group, alone=alone, apart_from=apart_from)


def test_a_small_notification_goes_to_one_worker_and_a_large_one_to_all(tmp_path: Path) -> None:
    engine = GroupNotes()
    controller = Controller(tmp_path, chunk_images=2, engine=engine, shared_from_images=6)
    controller.runner.start()
    try:
        paths = [controller.paint(f"{number}.png", "green") for number in range(6)]
        small, _ = controller.indexing.notify(paths[:5])
        assert controller.wait(small).status is JobStatus.COMPLETED
        assert engine.groups == [small.job_id] * 3
        engine.groups.clear()
        assert controller.wait(controller.indexing.notify(paths)[0]).processed_images == 6
        assert engine.groups == [None] * 3
        engine.groups.clear()
        controller.index(force=True)
        assert engine.groups == [None] * 3
    finally:
        controller.close()


def test_a_request_may_name_more_that_its_scan_passes_over(tmp_path: Path) -> None:
    controller = Controller(tmp_path, ignore=["*_thumb.png"])
    controller.runner.start()
    try:
        for name in ("red.png", "red_thumb.png", "red-draft.png"):
            controller.paint(name, "red")
        photos = str(controller.photos)
        with pytest.raises(InvalidRequest, match="matches no file"):
            controller.indexing.trigger(photos, ignore=["../x"])
        first = controller.indexing.trigger(photos, ignore=["*-draft.*", "red-*"])
        assert controller.wait(first).status is JobStatus.COMPLETED
        assert controller.find("any") == ["red.png"]
        controller.index()
        assert sorted(controller.find("any")) == ["red-draft.png", "red.png"]
        # What is passed over from now on stays.
        assert controller.wait(controller.indexing.trigger(photos, ignore=["*"])).total_images == 0
        assert sorted(controller.find("any")) == ["red-draft.png", "red.png"]
    finally:
        controller.close()
