"""What a worker does with a chunk."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from imagedex.core.images import FailureReason
from imagedex.embedding import EmbeddingModel
from imagedex.embedding.bundled import BundledModel
from imagedex.indexing import ChunkTask, WorkerSetup, embed_chunk
from imagedex.ingest import DecodeLimits, ImageRoots
from imagedex.jobs import ChunkDone
from imagedex.segments import DirectoryIndexFiles
from imagedex.testing.colour_model import ColourModel
from support.pictures import draw_pictures

ResourceT = TypeVar("ResourceT")


class Worker:
    """A worker's context, which tells what was made in it."""

    worker_id = "local-1"
    host = "localhost"
    threads = 1

    def __init__(self) -> None:
        self.resources: dict[str, Any] = {}

    def resource(self, key: str, make: Callable[[], ResourceT]) -> ResourceT:
        if key not in self.resources:
            self.resources[key] = make()
        found: ResourceT = self.resources[key]
        return found

    def close(self) -> None:
        for resource in self.resources.values():
            if hasattr(resource, "close"):
                resource.close()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


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
    kept = DirectoryIndexFiles(tmp_path / "index").read_part_paths(done.part)
    assert kept == [str(path) for path in paths if path != paths[4]]


def test_a_chunk_without_a_good_image_leaves_no_part_file(worker: Worker, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.touch()
    done = _embed(worker, tmp_path, [broken], ColourModel())
    assert (done.part, done.indexed, len(done.failures)) == (None, 0, 1)
    assert not (tmp_path / "index" / "parts").exists()
