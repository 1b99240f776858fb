"""What was embedded once is not embedded again under another path."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from imagedex.embedding import PixelArray, VectorArray
from imagedex.jobs import JobStatus
from imagedex.testing.colour_model import ColourEncoder, ColourModel
from support.controller import Controller

COMPUTED: list[int] = []
"""How many pictures the model got with each call; workers are threads of this process."""


class CountingEncoder(ColourEncoder):
    def encode_images(self, pixels: PixelArray) -> VectorArray:
        COMPUTED.append(len(pixels))
        return super().encode_images(pixels)


@dataclass(frozen=True)
class CountingModel(ColourModel):
    def load_image_encoder(self, *, threads: int) -> CountingEncoder:
        return CountingEncoder()


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    COMPUTED.clear()
    controller = Controller(tmp_path, model=CountingModel())
    controller.runner.start()
    yield controller
    controller.close()


def restarted(controller: Controller, folder: Path) -> Controller:
    """Return a controller after this one, whose workers remember nothing."""
    controller.close()
    COMPUTED.clear()
    other = Controller(folder, model=CountingModel())
    other.runner.start()
    return other


def paint_some(controller: Controller, count: int) -> list[Path]:
    """Paint pictures of one size in bytes that all differ, as a camera's raw files do."""
    paths = []
    for number in range(count):
        path = controller.photos / f"{number:02}.bmp"
        Image.new("RGB", (12, 12), (255, number, 0)).save(path)
        paths.append(path)
    assert len({path.stat().st_size for path in paths}) == 1
    return paths


def test_a_renamed_folder_costs_no_inference(controller: Controller, tmp_path: Path) -> None:
    folder = controller.photos / "2024"
    folder.mkdir()
    for colour in ("red", "green", "blue", "yellow"):
        controller.paint(f"2024/{colour}.png", colour)
    controller.index()
    assert sum(COMPUTED) == 4
    controller = restarted(controller, tmp_path)
    try:
        folder.rename(controller.photos / "holiday")
        job = controller.index()
        assert (job.total_images, job.failed_images) == (4, 0)
        assert COMPUTED == []
        moved = controller.queries.query(controller.prefix, "red", 2).results
        assert str(controller.photos / "holiday/red.png") in [hit.image_path for hit in moved]
    finally:
        controller.close()


def test_a_copy_gets_the_vector_and_the_facts_of_its_original(
    controller: Controller, tmp_path: Path
) -> None:
    red = controller.paint("red.png", "red")
    controller.index()
    controller = restarted(controller, tmp_path)
    try:
        shutil.copyfile(red, controller.photos / "copy.png")
        os.utime(controller.photos / "copy.png", ns=(5, 5))
        controller.index()
        assert COMPUTED == []
        assert sorted(controller.find("red")) == ["copy.png", "red.png"]
        assert controller.score("copy.png", "red") == controller.score("red.png", "red")
        index = controller.catalog.ensure_index(controller.prefix)
        path = str(controller.photos / "copy.png")
        entry = controller.catalog.lookup(index.index_id, [path])[path]
        assert entry.stamp is not None
        assert (entry.stamp.mtime_ns, entry.width, entry.height) == (5, 12, 12)
    finally:
        controller.close()


def test_a_touched_file_costs_no_inference(controller: Controller, tmp_path: Path) -> None:
    red = controller.paint("red.png", "red")
    controller.index()
    controller = restarted(controller, tmp_path)
    try:
        os.utime(red, ns=(7, 7))
        controller.index()
        assert COMPUTED == []
        assert controller.find("red") == ["red.png"]
        index = controller.catalog.ensure_index(controller.prefix)
        entry = controller.catalog.lookup(index.index_id, [red])[red]
        assert entry.stamp is not None
        assert entry.stamp.mtime_ns == 7
    finally:
        controller.close()


def test_copies_that_come_with_their_originals_are_computed_once(controller: Controller) -> None:
    for number in range(9):
        controller.paint(f"{number}.png", "red")
        controller.paint(f"{number}b.png", "green")
    job = controller.index()
    assert (job.processed_images, job.failed_images) == (18, 0)
    assert len(controller.find("any")) == 18
    # Two workers may begin with the same picture at the same moment.
    assert sum(COMPUTED) <= 4


def test_files_of_one_size_are_told_apart_by_their_content(
    controller: Controller, tmp_path: Path
) -> None:
    paths = paint_some(controller, 7)
    controller.index()
    controller = restarted(controller, tmp_path)
    try:
        Image.new("RGB", (12, 12), (0, 0, 255)).save(controller.photos / "new.bmp")
        for path in paths:
            shutil.copyfile(path, controller.photos / f"copy-{path.name}")
        controller.index()
        assert sum(COMPUTED) == 1
        assert controller.find("blue", 1) == ["new.bmp"]
        assert len(controller.find("any")) == 15
    finally:
        controller.close()


def test_a_changed_file_of_the_same_size_is_computed(
    controller: Controller, tmp_path: Path
) -> None:
    paths = paint_some(controller, 3)
    controller.index()
    controller = restarted(controller, tmp_path)
    try:
        Image.new("RGB", (12, 12), (0, 0, 255)).save(paths[1])
        os.utime(paths[1], ns=(1, 1))
        controller.index()
        assert sum(COMPUTED) == 1
        assert controller.find("blue", 1) == [paths[1].name]
    finally:
        controller.close()


def test_a_forced_job_computes_everything(controller: Controller) -> None:
    paint_some(controller, 5)
    controller.index()
    COMPUTED.clear()
    controller.index(force=True)
    assert sum(COMPUTED) == 5


def test_a_part_that_waited_for_a_restart_spares_its_copies(tmp_path: Path) -> None:
    COMPUTED.clear()
    first = Controller(tmp_path, model=CountingModel())
    red = first.paint("red.png", "red")
    job = first.indexing.trigger(str(first.photos))
    first.embed_without_publishing(job)
    assert sum(COMPUTED) == 1
    second = restarted(first, tmp_path)
    try:
        assert second.wait(job).status is JobStatus.COMPLETED
        shutil.copyfile(red, second.photos / "copy.png")
        second.index()
        assert COMPUTED == []
        assert sorted(second.find("red")) == ["copy.png", "red.png"]
    finally:
        second.close()
