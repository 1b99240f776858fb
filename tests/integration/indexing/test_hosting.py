"""What a chunk makes sure of on another machine, played by another place of the same files."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imagedex.core.errors import StorageError, UnfitWorker
from imagedex.core.images import FailureReason
from imagedex.core.paths import PathMapping
from imagedex.embedding import EmbeddingModel
from imagedex.embedding.bundled import BundledModel
from imagedex.embedding.clip.model import ClipModel
from imagedex.engine import WorkerContext
from imagedex.engine._context import ProcessContext
from imagedex.indexing import ChunkTask, WorkerSetup, embed_chunk
from imagedex.indexing.hosting import check_host, needs_of
from imagedex.ingest import DecodeLimits, ImageRoots
from imagedex.segments import DirectoryIndexFiles, place_of
from imagedex.testing.colour_model import ColourModel
from support.pictures import draw_pictures
from support.tiny_models import write_tiny_clip


class Site:
    """A share as the controller sees it below ``here``, and a host below ``there``."""

    def __init__(self, base: Path) -> None:
        self.here, self.there = base / "here", base / "there"
        self.paths = draw_pictures(self.here / "photos", 3)
        self.there.symlink_to(self.here)  # It is mounted.
        self.roots = ImageRoots([self.here / "photos"])
        self.index = self.here / "index"
        mapping = PathMapping([(str(self.here), str(self.there))])
        self.host = ProcessContext(
            worker_id="gpu1-1", host="gpu1", threads=1, is_remote=True, paths=mapping
        )

    @property
    def context(self) -> WorkerContext:
        """What a chunk finds on the host."""
        return self.host.call("a chunk")

    def unmount(self) -> None:
        """Leave the empty directory that the share was mounted on."""
        self.there.unlink()
        (self.there / "photos").mkdir(parents=True)
        (self.there / "index").mkdir()

    def task(self, model: EmbeddingModel | None = None) -> ChunkTask:
        """Return a chunk of all pictures."""
        setup = WorkerSetup(
            model or ColourModel(), self.roots, DecodeLimits(), 4, has_remote_workers=True
        )
        return ChunkTask(
            setup,
            self.index,
            "idx_20250101_000000_0000",
            0,
            1,
            tuple(str(path) for path in self.paths),
            place=setup.place_of(self.index),
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.host.close()


@pytest.mark.parametrize("is_mounted_below_a_link", [True, False])
def test_a_host_with_the_share_elsewhere_stores_the_controllers_paths(
    site: Site, is_mounted_below_a_link: bool
) -> None:
    if not is_mounted_below_a_link:
        site.there.unlink()
        # The controller's path leads nowhere on the host.
        shutil.copytree(site.here, site.there)
        place = place_of(site.index)
        (site.there / "index").mkdir()
        (site.there / "index" / "PLACE").write_text(place)
        shutil.rmtree(site.here / "photos")
    done = embed_chunk(site.context, pickle.loads(pickle.dumps(site.task())))
    assert (done.indexed, done.failures) == (3, ())
    assert done.part is not None
    files = DirectoryIndexFiles(site.there / "index")
    kept = [facts.image_path for facts in files.read_part_facts(done.part)]
    assert kept == [str(path) for path in site.paths]


def test_a_host_without_the_index_storage_writes_nothing_and_runs_no_chunk(site: Site) -> None:
    task = site.task()
    site.unmount()
    with pytest.raises(UnfitWorker, match=r"gpu1 cannot use the storage.*paths"):
        embed_chunk(site.context, task)
    assert list((site.there / "index").iterdir()) == []


def test_a_root_that_goes_away_fails_no_image(site: Site) -> None:
    task = site.task()
    site.there.unlink()
    site.there.mkdir()
    (site.there / "index").symlink_to(site.index)
    with pytest.raises(UnfitWorker, match=r"gpu1 sees nothing in .*there/photos.*mount the share"):
        embed_chunk(site.context, task)
    # Where the root is there, a file that is gone is just that.
    (site.there / "photos").symlink_to(site.here / "photos")
    site.paths[0].unlink()
    done = embed_chunk(site.context, task)
    assert [failure.reason for failure in done.failures] == [FailureReason.VANISHED]


def test_beside_the_controller_a_missing_root_and_storage_are_what_they_were(site: Site) -> None:
    local = ProcessContext(worker_id="local-1", host="here", threads=1)
    task = site.task()
    shutil.rmtree(site.here / "photos")
    assert len(embed_chunk(local.call("b"), task).failures) == 3
    (site.here / "index" / "parts").mkdir(exist_ok=True)
    draw_pictures(site.here / "photos", 3)
    shutil.rmtree(site.here / "index")
    (site.here / "index").write_text("no directory")
    with pytest.raises(StorageError):
        embed_chunk(local.call("b"), task)
    local.close()


def test_a_host_that_has_it_all_is_fit(site: Site) -> None:
    check_host(site.context, pickle.loads(pickle.dumps(needs_of(site.roots, BundledModel()))))


def test_a_host_that_sees_no_share_or_another_one_is_not(site: Site) -> None:
    needs = needs_of(site.roots, ColourModel())
    site.unmount()
    with pytest.raises(UnfitWorker, match="sees nothing in"):
        check_host(site.context, needs)
    draw_pictures(site.there / "photos", 3, seed=7)
    with pytest.raises(UnfitWorker, match="another file"):
        check_host(site.context, needs)
    for path in (site.there / "photos").iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(UnfitWorker, match="No such file"):
        check_host(site.context, needs)


def test_a_touched_or_rewritten_sample_is_not_the_same_file(site: Site) -> None:
    needs = needs_of(site.roots, ColourModel())
    os.utime(site.paths[0], (0, 0))
    with pytest.raises(UnfitWorker, match="another file"):
        check_host(site.context, needs)


def test_a_root_that_the_controller_does_not_see_says_nothing(site: Site) -> None:
    roots = ImageRoots([*site.roots.directories, site.here / "not-mounted-today"])
    check_host(site.context, needs_of(roots, ColourModel()))


def test_a_model_is_taken_from_where_the_host_has_it_and_must_be_the_same(
    site: Site, tmp_path: Path
) -> None:
    write_tiny_clip(site.here / "models" / "tiny")
    model = ClipModel.open(site.here / "models" / "tiny", name="tiny")
    _ = model.fingerprint  # Known to the controller, and so it travels.
    own = tmp_path / "host-models"
    mapping = PathMapping([(str(site.here / "models"), str(own)), *site.host.paths.pairs])
    host = ProcessContext(worker_id="gpu1-1", host="gpu1", threads=1, is_remote=True, paths=mapping)
    task = site.task(model)
    with pytest.raises(UnfitWorker, match=r"lacks the model 'tiny'.*`models` in the inventory"):
        embed_chunk(host.call("b"), task)
    write_tiny_clip(own / "tiny", seed=1)
    with pytest.raises(UnfitWorker, match="other files of the model 'tiny'"):
        check_host(host.call("a"), needs_of(site.roots, model))
    shutil.rmtree(own)
    shutil.copytree(site.here / "models", own)
    check_host(host.call("a"), needs_of(site.roots, model))
    shutil.rmtree(site.here / "models")  # Nothing of the controller's is asked for.
    assert embed_chunk(host.call("b"), replace(task, number=1)).indexed == 3
    host.close()
