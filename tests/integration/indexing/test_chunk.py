"""What a worker does with a chunk."""

from __future__ import annotations

import hashlib
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image

from imagedex.core.errors import ChunkStopped
from imagedex.core.images import FailureReason
from imagedex.core.paths import PathMapping
from imagedex.embedding import EmbeddingModel, PixelArray, Preprocess, VectorArray
from imagedex.embedding.bundled import BundledModel
from imagedex.indexing import ChunkTask, WorkerSetup, embed_chunk
from imagedex.indexing.known_vectors import KnownVector
from imagedex.ingest import DecodeLimits, ImageRoots
from imagedex.jobs import ChunkDone
from imagedex.segments import DirectoryIndexFiles
from imagedex.testing.colour_model import ColourEncoder, ColourModel, shrink
from imagedex.testing.preprocesses import Sabotage, Saboteur
from support.pictures import draw_pictures

LONGEST_WAIT_SECONDS = 60

ResourceT = TypeVar("ResourceT")


class Worker:
    """A worker's context, which tells what was made in it."""

    worker_id = "local-1"
    host = "localhost"
    threads = 1
    is_remote = False
    paths = PathMapping()

    def __init__(self) -> None:
        self.resources: dict[str, Any] = {}
        self.told: list[tuple[int, tuple[str, ...]]] = []
        self.stops_at: int | None = None
        self._lock = threading.Lock()

    def resource(self, key: str, make: Callable[[], ResourceT]) -> ResourceT:
        with self._lock:
            if key not in self.resources:
                self.resources[key] = make()
            found: ResourceT = self.resources[key]
            return found

    def progress(self, images: int, in_hand: Sequence[str] = ()) -> None:
        self.told.append((images, tuple(in_hand)))
        if self.stops_at is not None and images >= self.stops_at:
            raise ChunkStopped("The test wants it.")

    def close(self) -> None:
        for resource in self.resources.values():
            if hasattr(resource, "close"):
                resource.close()
        self.resources.clear()


@dataclass(frozen=True)
class WatchedModel(ColourModel):
    """The colour model, which notes what it is given and waits for a gate.

    With ``log`` a picture as wide as ``Sabotage.RAISE`` is noted there when it is decoded.
    """

    log: Path | None = None

    @property
    def preprocess(self) -> Preprocess:  # type: ignore[override]  # A constant of ColourModel.
        return shrink if self.log is None else Saboteur(self.log, size=8)

    def load_image_encoder(self, *, threads: int) -> WatchedEncoder:
        return WATCHED[-1]


class WatchedEncoder(ColourEncoder):
    def __init__(self) -> None:
        self.batches: list[int] = []
        self.callers: list[int] = []
        self.gate = threading.Event()
        self._busy = threading.Lock()

    def encode_images(self, pixels: PixelArray) -> VectorArray:
        assert self._busy.acquire(blocking=False), "two chunks use the model at once"
        try:
            self.batches.append(len(pixels))
            self.callers.append(threading.get_ident())
            assert self.gate.wait(LONGEST_WAIT_SECONDS)
            return super().encode_images(pixels)
        finally:
            self._busy.release()


WATCHED: list[WatchedEncoder] = []
"""The encoders of the running test, since a model travels to a worker without them."""


@pytest.fixture
def watched() -> Iterator[WatchedEncoder]:
    WATCHED.append(WatchedEncoder())
    yield WATCHED[-1]
    WATCHED.clear()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def _wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def _embed(worker: Worker, folder: Path, paths: list[Path], model: EmbeddingModel) -> ChunkDone:
    setup = WorkerSetup(model, ImageRoots([folder]), DecodeLimits(), batch_images=4)
    names = tuple(str(path) for path in paths)
    task = ChunkTask(setup, folder / "index", "idx_20250101_000000_0000", 0, 1, names)
    # As it reaches a worker: another object each time.
    return embed_chunk(worker, pickle.loads(pickle.dumps(task)))


@pytest.mark.parametrize("model", [BundledModel(), ColourModel()], ids=["bundled", "colours"])
def test_the_model_and_the_decoder_are_made_once_for_all_chunks(
    worker: Worker, tmp_path: Path, model: EmbeddingModel
) -> None:
    paths = draw_pictures(tmp_path / "photos", 3)
    for _ in range(3):
        assert _embed(worker, tmp_path, paths, model).indexed == 3
    assert len(worker.resources) == 2


def test_every_image_is_either_in_the_part_file_or_a_failure(
    worker: Worker, tmp_path: Path
) -> None:
    paths = draw_pictures(tmp_path / "photos", 9)
    paths[4].write_bytes(b"")
    done = _embed(worker, tmp_path, paths, ColourModel())
    assert done.indexed == 8
    assert [(f.image_path, f.reason) for f in done.failures] == [
        (str(paths[4]), FailureReason.EMPTY)
    ]
    assert done.part is not None
    kept = DirectoryIndexFiles(tmp_path / "index").read_part_facts(done.part)
    assert [facts.image_path for facts in kept] == [str(path) for path in paths if path != paths[4]]


def test_a_chunk_without_a_good_image_leaves_no_part_file(worker: Worker, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.touch()
    done = _embed(worker, tmp_path, [broken], ColourModel())
    assert (done.part, done.indexed, len(done.failures)) == (None, 0, 1)
    assert not (tmp_path / "index" / "parts").exists()


def test_two_chunks_of_a_worker_take_turns_at_the_model(
    worker: Worker, tmp_path: Path, watched: WatchedEncoder
) -> None:
    paths = draw_pictures(tmp_path / "photos", 14)
    with ThreadPoolExecutor(2) as threads:
        chunks = [
            threads.submit(_embed, worker, tmp_path, half, WatchedModel())
            for half in (paths[:7], paths[7:])
        ]
        watched.gate.set()
        assert [chunk.result(LONGEST_WAIT_SECONDS).indexed for chunk in chunks] == [7, 7]
    # One had the model until it had embedded all of its images.
    changes = [one != next_one for one, next_one in pairwise(watched.callers)]
    assert sum(changes) == 1


def test_a_chunk_that_waits_for_the_model_has_its_first_images_decoded_meanwhile(
    worker: Worker, tmp_path: Path, watched: WatchedEncoder
) -> None:
    paths = draw_pictures(tmp_path / "photos", 4)
    noted = tmp_path / "noted.png"
    Image.new("RGB", (Sabotage.RAISE, 8)).save(noted)
    log = tmp_path / "log"
    model = WatchedModel(log=log)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(_embed, worker, tmp_path, paths, model)
        _wait_until(lambda: watched.batches, "the first chunk to use the model")
        second = threads.submit(_embed, worker, tmp_path, [noted, paths[0]], model)
        _wait_until(log.exists, "the second chunk's image to be decoded")
        assert not first.done()
        assert not second.done()
        watched.gate.set()
        assert first.result(LONGEST_WAIT_SECONDS).indexed == 4
        assert second.result(LONGEST_WAIT_SECONDS).indexed == 1


def test_the_size_of_batches_is_found_on_the_work_and_never_above_the_bound(
    worker: Worker, tmp_path: Path, watched: WatchedEncoder
) -> None:
    watched.gate.set()
    paths = draw_pictures(tmp_path / "photos", 30)
    for _ in range(2):
        assert _embed(worker, tmp_path, paths, WatchedModel()).indexed == 30
    assert watched.batches[:6] == [1, 1, 1, 2, 2, 2]
    assert max(watched.batches) <= 4


def test_an_error_of_the_model_lets_the_next_chunk_have_its_turn(
    worker: Worker, tmp_path: Path, watched: WatchedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = draw_pictures(tmp_path / "photos", 3)
    watched.gate.set()
    with monkeypatch.context() as broken:
        broken.setattr(ColourEncoder, "encode_images", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _embed(worker, tmp_path, paths, WatchedModel())
    assert _embed(worker, tmp_path, paths, WatchedModel()).indexed == 3


def test_what_cannot_be_taken_from_a_file_is_embedded(
    worker: Worker, tmp_path: Path, watched: WatchedEncoder
) -> None:
    watched.gate.set()
    paths = draw_pictures(tmp_path / "photos", 4)
    names = tuple(str(path) for path in paths)
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    first = _embed(worker, tmp_path, paths[:2], WatchedModel())
    assert first.part is not None
    known = {
        names[0]: (KnownVector(hashes[0], first.part, 0),),
        names[1]: (KnownVector(hashes[1], first.part, 0),),  # The row of another content.
        names[2]: (KnownVector(hashes[2], "segments/00000009-1.parquet", 0),),  # Not there.
        names[3]: (KnownVector(hashes[3], first.part, 2),),  # There is no such row.
    }
    watched.batches.clear()
    worker.close()
    setup = WorkerSetup(WatchedModel(), ImageRoots([tmp_path]), DecodeLimits(), batch_images=4)
    task = ChunkTask(setup, tmp_path / "index", "idx_20250101_000000_0000", 1, 1, names, known)
    done = embed_chunk(worker, pickle.loads(pickle.dumps(task)))
    assert (done.indexed, done.reused, done.failures) == (4, 0, ())
    task = replace(task, number=2, known={names[0]: known[names[0]]})
    worker.close()
    done = embed_chunk(worker, pickle.loads(pickle.dumps(task)))
    assert (done.indexed, done.reused) == (4, 1)


def test_a_chunk_tells_what_is_done_and_which_images_it_turns_to(
    worker: Worker, tmp_path: Path
) -> None:
    paths = draw_pictures(tmp_path / "photos", 6)
    paths[0].write_bytes(b"")
    _embed(worker, tmp_path, paths, ColourModel())
    batches = [told for told in worker.told if told[1]]
    assert [path for _, batch in batches for path in batch] == [str(path) for path in paths[1:]]
    done = [images for images, _ in batches]
    assert done[0] == 1  # The one that is no picture.
    assert done == sorted(done)


def test_a_chunk_that_is_stopped_leaves_nothing_and_what_it_used_is_of_use_to_others(
    worker: Worker, tmp_path: Path
) -> None:
    paths = draw_pictures(tmp_path / "photos", 9)
    worker.stops_at = 1
    with pytest.raises(ChunkStopped):
        _embed(worker, tmp_path, paths, ColourModel())
    assert not list((tmp_path / "index").rglob("*.parquet"))
    worker.stops_at = None
    assert _embed(worker, tmp_path, paths, ColourModel()).indexed == 9


def test_a_chunk_can_be_stopped_while_it_waits_for_the_model(
    worker: Worker, tmp_path: Path, watched: WatchedEncoder
) -> None:
    paths = draw_pictures(tmp_path / "photos", 4)
    with ThreadPoolExecutor(2) as chunks:
        first = chunks.submit(_embed, worker, tmp_path, paths[:2], WatchedModel())
        _wait_until(lambda: watched.callers, "the first chunk to have the model")
        second = chunks.submit(_embed, worker, tmp_path, paths[2:], WatchedModel())
        told = len(worker.told)
        _wait_until(lambda: len(worker.told) > told + 5, "the second chunk to wait")
        worker.stops_at = 0
        with pytest.raises(ChunkStopped):
            second.result(LONGEST_WAIT_SECONDS)
        worker.stops_at = None
        watched.gate.set()
        assert first.result(LONGEST_WAIT_SECONDS).indexed == 2
