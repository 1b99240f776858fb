"""An index gets another model while it is queried and other jobs go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imagedex.core.errors import InvalidRequest, ModelError, NotFound
from imagedex.core.images import RowLocation
from imagedex.embedding import EmbeddingModel
from imagedex.embedding.runtimes import Precision
from imagedex.jobs import Job, JobStatus
from imagedex.segments import (
    DirectoryIndexFiles,
    Manifest,
    PartRows,
    PreparedReplacement,
    Replacement,
    publish_lock,
    roll_back,
)
from imagedex.testing.colour_model import ColourModel
from imagedex.testing.rolled_colours import RolledColourModel
from imagedex.upkeep import Doctor, Repair
from support.controller import Controller
from support.gates import Gate

OTHER = RolledColourModel()
_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")


def _find(name: str, _precision: Precision) -> EmbeddingModel:
    models: dict[str, EmbeddingModel] = {"colours": ColourModel(), OTHER.name: OTHER}
    if name not in models:
        raise ModelError(f"There is no model {name!r}.")
    return models[name]


class _GatedReplacement:
    """A replacement that is held up when its first segment is built, the long part."""

    def __init__(self, prepared: PreparedReplacement, gate: Gate) -> None:
        self._prepared = prepared
        self._gate = gate

    def add(self, parts: Sequence[PartRows]) -> int:
        number = self._prepared.add(parts)
        self._gate.pass_through()
        return number

    def publish(self, *, expected_generation: int, removed: Sequence[RowLocation]) -> Manifest:
        return self._prepared.publish(expected_generation=expected_generation, removed=removed)


class _GatedFiles(DirectoryIndexFiles):
    gate: Gate

    @contextmanager
    def prepare_replacement(self, replacement: Replacement) -> Iterator[PreparedReplacement]:
        with super().prepare_replacement(replacement) as prepared:
            yield _GatedReplacement(prepared, self.gate)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


StartController = Callable[..., Controller]


@pytest.fixture
def start(tmp_path: Path, request: pytest.FixtureRequest) -> StartController:
    """Start a controller that finds both models."""

    def start(**options: Any) -> Controller:
        controller = Controller(tmp_path, find_model=_find, **options)
        request.addfinalizer(controller.close)
        controller.runner.start()
        return controller

    return start


@pytest.fixture
def controller(start: StartController) -> Controller:
    """A controller with a photo of each of six colours, in an index of the colour model."""
    controller = start()
    _paint_all(controller)
    return controller


@pytest.fixture
def gated(start: StartController, gate: Gate) -> Controller:
    """As ``controller``, whose changes of model wait at the gate before they are published."""

    def files_of(index_prefix: Path) -> DirectoryIndexFiles:
        files = _GatedFiles(index_prefix)
        files.gate = gate
        return files

    controller = start(files_of=files_of)
    _paint_all(controller)
    return controller


def _paint_all(controller: Controller) -> None:
    for colour in _COLOURS:
        controller.paint(f"{colour}.png", colour)
    controller.index()


def _complete(controller: Controller, job: Job) -> Job:
    job = controller.wait(job)
    assert job.status is JobStatus.COMPLETED, job.error
    return job


def _notify(controller: Controller, *paths: str) -> None:
    _complete(controller, controller.indexing.notify(paths)[0])


def _manifest(controller: Controller) -> Manifest:
    manifest = DirectoryIndexFiles(controller.prefix).current()
    assert manifest is not None
    return manifest


def _require_whole(controller: Controller, model: EmbeddingModel, names: set[str]) -> None:
    """The index holds these photos, all of one model, and catalog and files say the same."""
    manifest = _manifest(controller)
    assert (manifest.model_name, manifest.fingerprint, manifest.dim) == (
        model.name,
        model.fingerprint,
        model.dim,
    )
    answer = controller.queries.query(controller.prefix, "red", 100)
    assert answer.model_name == model.name
    assert {Path(result.image_path).name for result in answer.results} == names
    for name in names:
        colour = name.removesuffix(".png")
        if colour in _COLOURS:
            assert controller.score(name, colour) == pytest.approx(1.0)
    diagnosis = Doctor(
        DirectoryIndexFiles(controller.prefix),
        database=controller.database,
        catalog=controller.catalog,
        jobs=controller.jobs,
    ).examine()
    assert diagnosis.findings == ()


_ALL = {f"{colour}.png" for colour in _COLOURS}


def test_an_index_gets_another_model_and_nothing_of_the_work_is_left(
    controller: Controller,
) -> None:
    job = _complete(controller, controller.indexing.change_model(OTHER.name))
    _require_whole(controller, OTHER, _ALL)
    assert (job.total_images, job.processed_images, job.failed_images) == (6, 6, 0)
    assert not (controller.prefix / "parts" / job.job_id).exists()
    # What comes after it is embedded by the new model, and an unchanged image not at all.
    _notify(controller, controller.paint("white.png", "white"))
    _require_whole(controller, OTHER, _ALL | {"white.png"})
    assert controller.find("white")[0] == "white.png"
    generation = controller.generation
    controller.index()
    assert controller.generation == generation


def test_to_ask_for_the_model_that_it_has_changes_nothing(controller: Controller) -> None:
    generation = controller.generation
    _complete(controller, controller.indexing.change_model("colours"))
    assert controller.generation == generation


def test_what_cannot_be_asked_for(controller: Controller) -> None:
    with pytest.raises(InvalidRequest, match="no model 'nothing'"):
        controller.indexing.change_model("nothing")
    with pytest.raises(InvalidRequest, match="pull NAME --from-dir"):
        controller.indexing.change_model("/srv/models/clip")


def test_an_index_that_is_not_there_has_no_model_to_change(start: StartController) -> None:
    with pytest.raises(NotFound, match="IMAGEDEX_MODEL"):
        start().indexing.change_model(OTHER.name)


def test_jobs_and_queries_go_on_and_all_that_came_meanwhile_is_there_afterwards(
    gated: Controller, gate: Gate
) -> None:
    change = gated.indexing.change_model(OTHER.name)
    gate.wait_until_reached()
    faults: list[str] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            answer = gated.queries.query(gated.prefix, "green", 1)
            # A vector of one model searched among those of the other would find another image.
            if [Path(r.image_path).name for r in answer.results] != ["green.png"]:
                faults.append(str(answer))

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    _notify(gated, *(gated.paint(f"new-{number}.png", "white") for number in range(7)))
    _notify(gated, gated.paint("red.png", "black"))
    (gated.photos / "blue.png").unlink()
    _notify(gated, str(gated.photos / "blue.png"))
    assert _manifest(gated).model_name == "colours"
    assert gated.find("black")[0] == "red.png"
    gate.open()
    _complete(gated, change)
    is_over.set()
    for thread in asking:
        thread.join()
    assert faults == []
    assert _manifest(gated).model_name == OTHER.name
    names = (_ALL - {"blue.png"}) | {f"new-{number}.png" for number in range(7)}
    assert set(gated.find("white")) == names
    assert gated.find("black")[0] == "red.png"
    assert gated.score("red.png", "black") == pytest.approx(1.0)
    (gated.photos / "red.png").unlink()
    _notify(gated, str(gated.photos / "red.png"))
    assert set(gated.find("white")) == names - {"red.png"}


def test_what_another_job_had_embedded_with_the_old_model_is_embedded_again(
    controller: Controller, start: StartController
) -> None:
    controller.close()
    between = Controller(controller.photos.parent, find_model=_find)
    between.paint("white.png", "white")
    job = between.indexing.trigger(str(between.photos))
    between.embed_without_publishing(job)
    change = between.indexing.change_model(OTHER.name)
    between.close()
    second = start()
    _complete(second, change)
    _complete(second, job)
    _require_whole(second, OTHER, _ALL | {"white.png"})


def test_a_cancelled_change_leaves_the_index_and_no_parts(gated: Controller, gate: Gate) -> None:
    before = _manifest(gated)
    change = gated.indexing.change_model(OTHER.name)
    gate.wait_until_reached()
    assert len(list((gated.prefix / "parts" / change.job_id).glob("*.parquet"))) == 2
    gated.indexing.cancel(change.job_id)
    gate.open()
    assert gated.wait(change).status is JobStatus.CANCELLED
    assert _manifest(gated) == before
    assert not (gated.prefix / "parts" / change.job_id).exists()
    _require_whole(gated, gated.model, _ALL)
    # And it can be asked for again.
    _complete(gated, gated.indexing.change_model(OTHER.name))
    _require_whole(gated, OTHER, _ALL)


def test_a_change_that_was_cut_short_goes_on_after_its_last_chunk(
    gated: Controller, gate: Gate, start: StartController
) -> None:
    change = gated.indexing.change_model(OTHER.name)
    gate.wait_until_reached()
    closing = threading.Thread(target=gated.close)
    closing.start()
    while not gated.runner._closing.is_set():  # There is no other sign of it.
        closing.join(0.01)
    gate.open()
    closing.join()
    parts = sorted((gated.prefix / "parts" / change.job_id).glob("*.parquet"))
    assert len(parts) == 2
    parts[0].unlink()  # It is embedded again, the other is not.
    kept = parts[1].stat().st_mtime_ns
    second = start()
    job = _complete(second, change)
    assert job.processed_images == 6
    assert kept > 0
    _require_whole(second, OTHER, _ALL)


@pytest.mark.parametrize("method", ["begin_move", "place", "end_move"])
def test_a_crash_after_the_publishing_neither_loses_nor_doubles(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    real = getattr(controller.catalog, method)
    crashes = iter([True])

    def crash(*args: Any, **options: Any) -> Any:
        if next(crashes, False):
            raise RuntimeError("as if killed")
        return real(*args, **options)

    monkeypatch.setattr(controller.catalog, method, crash)
    _complete(controller, controller.indexing.change_model(OTHER.name))
    assert next(crashes, None) is None
    _require_whole(controller, OTHER, _ALL)


def test_an_image_that_cannot_be_read_any_more_leaves_the_index_and_is_listed(
    start: StartController,
) -> None:
    controller = start()
    for number in range(20):
        controller.paint(f"{number}.png", "green")
    controller.index()
    (controller.photos / "3.png").unlink()
    (controller.photos / "4.png").write_bytes(b"no picture any more")
    job = _complete(controller, controller.indexing.change_model(OTHER.name))
    assert job.failed_images == 2
    failures = controller.indexing.failures(job.job_id, limit=10, cursor=None)
    assert [Path(one.image_path).name for one in failures.items] == ["3.png", "4.png"]
    _require_whole(controller, OTHER, {f"{n}.png" for n in range(20)} - {"3.png", "4.png"})
    # It is as any image that failed: the next scan that finds it changed takes it in again.
    controller.paint("4.png", "red")
    controller.index()
    assert controller.find("red")[0] == "4.png"


def test_an_older_version_does_not_stand_for_one_that_cannot_be_read(
    start: StartController, gate: Gate
) -> None:
    def files_of(index_prefix: Path) -> DirectoryIndexFiles:
        files = _GatedFiles(index_prefix)
        files.gate = gate
        return files

    controller = start(files_of=files_of)
    for number in range(20):
        controller.paint(f"{number}.png", "green")
    controller.index()
    change = controller.indexing.change_model(OTHER.name)
    gate.wait_until_reached()  # All are embedded once.
    _notify(controller, controller.paint("3.png", "red"))
    (controller.photos / "3.png").write_bytes(b"no picture any more")
    gate.open()
    job = _complete(controller, change)
    failures = controller.indexing.failures(job.job_id, limit=10, cursor=None)
    assert [Path(one.image_path).name for one in failures.items] == ["3.png"]
    _require_whole(controller, OTHER, {f"{n}.png" for n in range(20)} - {"3.png"})


def _repair(controller: Controller) -> None:
    Repair(
        DirectoryIndexFiles(controller.prefix),
        database=controller.database,
        catalog=controller.catalog,
        jobs=controller.jobs,
        hold_index=publish_lock(controller.prefix).held,
    ).run()


def test_with_many_unreadable_images_an_index_keeps_its_model_and_the_job_can_be_retried(
    controller: Controller,
) -> None:
    (controller.photos / "red.png").rename(controller.photos.parent / "away.png")
    change = controller.wait(controller.indexing.change_model(OTHER.name))
    assert change.status is JobStatus.FAILED
    assert "1 of 6 images cannot be read" in (change.error or "")
    assert "IMAGEDEX_INDEXING__REMOVAL_SHARE" in (change.error or "")
    _require_whole(controller, controller.model, _ALL)
    # What was embedded is kept for it, also when other jobs sweep or the index is repaired.
    _notify(controller, controller.paint("white.png", "white"))
    _repair(controller)
    assert list((controller.prefix / "parts" / change.job_id).glob("*.parquet"))
    (controller.photos.parent / "away.png").rename(controller.photos / "red.png")
    controller.indexing.retry(change.job_id)
    _complete(controller, change)
    _require_whole(controller, OTHER, _ALL | {"white.png"})


def test_a_root_that_is_not_mounted_is_waited_for(controller: Controller) -> None:
    controller.photos.rename(controller.photos.parent / "unmounted")
    controller.photos.mkdir()
    change = controller.indexing.change_model(OTHER.name)
    assert "mount it" in controller.wait_for_error(change)
    controller.photos.rmdir()
    (controller.photos.parent / "unmounted").rename(controller.photos)
    _complete(controller, change)
    _require_whole(controller, OTHER, _ALL)


def test_to_go_back_to_the_generation_before_brings_back_its_model(
    controller: Controller,
) -> None:
    _complete(controller, controller.indexing.change_model(OTHER.name))
    manifest = roll_back(controller.prefix, generation=None, known_generation=controller.generation)
    assert manifest.model_name == "colours"
    controller.publisher.reconcile(controller.prefix)
    _require_whole(controller, controller.model, _ALL)
    _notify(controller, controller.paint("white.png", "white"))
    _require_whole(controller, controller.model, _ALL | {"white.png"})
