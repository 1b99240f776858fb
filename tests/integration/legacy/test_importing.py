"""Old indexes adopted: real files, a real database, the real application."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from imagedex.app import Application, build_application
from imagedex.catalog import SqlCatalog
from imagedex.cli.connection import client_of, local_application
from imagedex.client import JobState
from imagedex.core.errors import (
    FingerprintMismatch,
    InvalidRequest,
    ModelError,
    OutsideImageRoots,
    StorageError,
)
from imagedex.embedding.bundled import BundledModel
from imagedex.legacy import ImportOptions, ImportReport
from imagedex.segments import DirectoryIndexFiles
from imagedex.settings import load_settings
from support.old_indexes import draw_photos, unit_vectors, write_faiss, write_pair, write_parquet
from support.vectors import make_index

MODEL, DIM = "clip-ViT-L-14", 768


class Home:
    """A home beside a folder of photos and an old index ``old``."""

    def __init__(self, folder: Path) -> None:
        self.photos = folder / "photos"
        self.prefix = folder / "old"
        self.settings = load_settings(home=folder / "home", image_roots=(self.photos,), model=MODEL)
        self.options = ImportOptions(self.prefix, MODEL, root=self.photos)
        self.index = folder / "home" / "index"

    @contextmanager
    def running(self) -> Iterator[Application]:
        with local_application(self.settings, run_jobs=True, debug=False) as application:
            yield application

    def adopt(self, **options: Any) -> tuple[JobState, ImportReport, dict[str, str]]:
        """Import to the end; return the job, what was found, and the failures by name."""
        with self.running() as application:
            job, report = application.legacy.adopt(replace(self.options, **options))
            with client_of(application) as client:
                state = client.wait(job.job_id)
                failures = client.all_failures(job.job_id)
                return state, report, {Path(f.image_path).name: f.reason for f in failures}

    def names(self) -> list[str]:
        """Return the names of all images in the current generation, sorted."""
        return sorted(path.name for path, _ in self.rows())

    def rows(self) -> Iterator[tuple[Path, Any]]:
        files = DirectoryIndexFiles(self.index)
        manifest = files.current()
        assert manifest is not None
        gone = files.read_tombstones(manifest.tombstones)
        for segment in manifest.segments:
            for location, facts in files.read_facts(segment):
                if location not in gone:
                    yield Path(facts.image_path), facts


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_the_ten_best_are_those_of_the_old_index(home: Home) -> None:
    count = 1200
    photos = draw_photos(home.photos, count)
    vectors = unit_vectors(count, DIM)
    write_pair(home.prefix, [path.name for path in photos], vectors, path_column="image_path")
    state, report, failures = home.adopt()
    assert (state.status, failures) == ("completed", {})
    assert (report.rows, report.images, report.compared) == (count, count, count)
    old = faiss.IndexFlatIP(DIM)
    old.add(vectors)
    queries = unit_vectors(100, DIM, seed=7)
    old_scores, old_rows = old.search(queries, 10)
    files = DirectoryIndexFiles(home.index)
    manifest = files.current()
    assert manifest is not None
    hits = files.open(manifest, None).search(queries, [10] * 100)
    for found, scores, rows in zip(hits, old_scores, old_rows, strict=True):
        assert list(found.image_paths) == [str(photos[row]) for row in rows]
        np.testing.assert_allclose(found.scores, scores, atol=1e-5)


def test_facts_are_those_of_the_files(home: Home) -> None:
    photos = draw_photos(home.photos, 5)
    write_pair(home.prefix, photos, unit_vectors(5, DIM))
    home.adopt(root=None)
    facts = dict(home.rows())
    assert sorted(facts) == photos
    for path, one in facts.items():
        status = path.stat()
        assert one.content_hash == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (one.stamp.size, one.stamp.mtime_ns) == (status.st_size, status.st_mtime_ns)
        assert (one.width, one.height, one.format) == (40 + int(path.stem) % 7, 30, "JPEG")
    # A scan finds nothing to do: the catalog knows the images as if they had been indexed.
    with home.running() as application, client_of(application) as client:
        state = client.wait(client.trigger(str(home.photos)).job_id)
        assert (state.status, state.progress.failed_images) == ("completed", 0)
        assert client.stats().num_images == 5


def test_what_cannot_be_adopted_is_left_out_and_listed(home: Home, tmp_path: Path) -> None:
    photos = draw_photos(home.photos, 10)
    vectors = unit_vectors(12, DIM)
    vectors[4] = 0
    vectors[5, 7] = np.nan
    photos[1].unlink()
    photos[2].write_bytes(photos[2].read_bytes()[:200])
    photos[3].unlink()
    photos[3].symlink_to(tmp_path / "outside.jpg")
    (tmp_path / "outside.jpg").write_bytes(photos[6].read_bytes())
    write_pair(home.prefix, [*photos, tmp_path / "outside.jpg", None], vectors)
    state, report, failures = home.adopt()
    assert state.status == "completed"
    assert failures == {
        "000001.jpg": "vanished",
        "000002.jpg": "truncated",
        "000003.jpg": "outside_roots",
        "000004.jpg": "bad_row",
        "000005.jpg": "bad_row",
        "outside.jpg": "outside_roots",
        "row 11": "bad_row",
    }
    assert (report.unplaced, report.unusable, report.rows) == (2, 2, 12)
    assert home.names() == [path.name for path in (photos[0], *photos[6:])]
    assert state.progress.total_images == 12
    assert state.progress.processed_images == 12


def test_importing_again_takes_what_is_there_now_and_leaves_the_rest(home: Home) -> None:
    photos = draw_photos(home.photos, 6)
    first, second = unit_vectors(6, DIM), unit_vectors(6, DIM, seed=1)
    kept = photos[2].read_bytes()
    photos[2].unlink()
    write_pair(home.prefix, photos, first)
    assert home.adopt()[2] == {"000002.jpg": "vanished"}
    photos[2].write_bytes(kept)
    write_pair(home.prefix, photos, second)  # Only the missing one may come from here.
    assert home.adopt()[2] == {}
    assert home.names() == [path.name for path in photos]
    files = DirectoryIndexFiles(home.index)
    manifest = files.current()
    assert manifest is not None
    for row, vector in enumerate(first):
        expected = second[2] if row == 2 else vector
        (hits,) = files.open(manifest, None).search(expected[np.newaxis], [1])
        assert hits.image_paths == (str(photos[row]),)
        assert hits.scores[0] == pytest.approx(1, abs=1e-6)
    assert not list((home.index / "parts").iterdir())


def test_a_retry_takes_images_that_have_come_back(home: Home) -> None:
    photos = draw_photos(home.photos, 3)
    kept = photos[1].read_bytes()
    photos[1].unlink()
    write_pair(home.prefix, [*photos, "/elsewhere/x.jpg"], unit_vectors(4, DIM))
    state, _, failures = home.adopt()
    assert failures == {"000001.jpg": "vanished", "x.jpg": "outside_roots"}
    photos[1].write_bytes(kept)
    with home.running() as application, client_of(application) as client:
        client.retry(state.job_id)
        state = client.wait(state.job_id)
        left = [failure.image_path for failure in client.all_failures(state.job_id)]
    assert (state.status, left) == ("completed", ["/elsewhere/x.jpg"])
    assert home.names() == [path.name for path in photos]


def test_the_state_file_tells_which_files_have_changed(home: Home, tmp_path: Path) -> None:
    photos = draw_photos(home.photos, 4)
    write_pair(home.prefix, [path.name for path in photos], unit_vectors(4, DIM))
    indexed = {
        path.name: {
            "indexed_at": "2025-11-14T12:34:56",
            "file_mtime": path.stat().st_mtime,
            "file_size": path.stat().st_size,
            "index_position": row,
        }
        for row, path in enumerate(photos)
    }
    indexed["000001.jpg"]["file_size"] = 1
    indexed["000002.jpg"]["file_mtime"] = 1_600_000_000.25
    del indexed["000003.jpg"]  # Nothing is known of it, so nothing speaks against it.
    state_file = tmp_path / "state.json"
    document = {"indexed_images": indexed, "pending_queue": ["new.jpg"], "failed_images": []}
    state_file.write_text(json.dumps(document))
    _, report, failures = home.adopt(state=state_file)
    assert failures == {"000001.jpg": "changed", "000002.jpg": "changed"}
    assert report.pending == 1
    assert home.names() == ["000000.jpg", "000003.jpg"]
    indexed["000000.jpg"]["index_position"] = 2
    state_file.write_text(json.dumps(document))
    with pytest.raises(InvalidRequest, match=r"000000\.jpg' in row 2 but .* in row 0"):
        home.adopt(state=state_file)


def test_vectors_of_another_length_are_scaled(home: Home) -> None:
    photos = draw_photos(home.photos, 3)
    vectors = unit_vectors(3, DIM)
    write_parquet(home.prefix.with_name("old.parquet"), photos, vectors * 5)
    state, report, _ = home.adopt()
    assert (state.status, report.scaled, report.faiss) == ("completed", 3, None)
    files = DirectoryIndexFiles(home.index)
    manifest = files.current()
    assert manifest is not None
    (hits,) = files.open(manifest, None).search(vectors[[1]], [1])
    assert hits.image_paths == (str(photos[1]),)
    assert hits.scores[0] == pytest.approx(1, abs=1e-6)


def test_the_index_is_one_of_the_model_as_it_will_be_installed(home: Home) -> None:
    photos = draw_photos(home.photos, 2)
    write_pair(home.prefix, photos, unit_vectors(2, DIM))
    _, report, _ = home.adopt()
    manifest = DirectoryIndexFiles(home.index).current()
    assert manifest is not None
    assert (manifest.model_name, manifest.dim) == (MODEL, DIM)
    with closing(build_application(home.settings, run_jobs=False)) as application:
        assert manifest.fingerprint == report.fingerprint == application.model.fingerprint


def test_a_process_that_serves_another_model_adopts_all_the_same(home: Home) -> None:
    photos = draw_photos(home.photos, 2)
    write_pair(home.prefix, photos, unit_vectors(2, DIM))
    home.settings = home.settings.model_copy(update={"model": "bundled"})
    state, _, _ = home.adopt()
    assert state.status == "completed"
    assert home.names() == [path.name for path in photos]


def refused(home: Home, error: type[Exception], match: str, **options: Any) -> None:
    with pytest.raises(error, match=match):
        home.adopt(**options)
    assert not home.index.exists()


def test_what_makes_no_sense_is_refused_before_there_is_a_job(home: Home, tmp_path: Path) -> None:
    photos = draw_photos(home.photos, 3)
    write_pair(home.prefix, [path.name for path in photos], unit_vectors(3, DIM))
    refused(home, InvalidRequest, "--root", root=None)
    refused(home, InvalidRequest, "numbers, but those of the model 'clip-ViT-B-32' have 512",
            model="clip-ViT-B-32")  # fmt: skip
    refused(home, ModelError, "no model 'vgg16'", model="vgg16")
    refused(home, ModelError, "models pull dfn-ViT-L-14", model="dfn-ViT-L-14")
    refused(home, OutsideImageRoots, "No row of the old index", root=tmp_path / "elsewhere")
    refused(home, InvalidRequest, "no state file", state=tmp_path / "none.json")
    refused(home, InvalidRequest, "no column 'x'", path_column="x")
    with home.running() as application:
        assert application.indexing.list_jobs(status=None, limit=1, cursor=None).total == 0


def test_images_that_are_not_mounted_are_not_missing(home: Home) -> None:
    photos = draw_photos(home.photos, 3)
    write_pair(home.prefix, photos, unit_vectors(3, DIM))
    home.photos.rename(home.photos.with_name("elsewhere"))
    refused(home, StorageError, "mount its share")
    home.photos.mkdir()
    refused(home, StorageError, "mount its share")


def test_an_index_of_another_model_is_not_mixed_with_it(home: Home) -> None:
    make_index(home.index, BundledModel(), 3)
    photos = draw_photos(home.photos, 3)
    write_pair(home.prefix, photos, unit_vectors(3, DIM))
    with pytest.raises(FingerprintMismatch, match=r"'bundled'.*'clip-ViT-L-14'.*--index-prefix"):
        home.adopt()


def test_a_pair_that_changes_after_the_request_is_not_adopted(home: Home) -> None:
    photos = draw_photos(home.photos, 3)
    write_pair(home.prefix, photos, unit_vectors(3, DIM))
    with local_application(home.settings, run_jobs=False, debug=False) as application:
        job, _ = application.legacy.adopt(home.options)
    write_faiss(home.prefix.with_name("old.faiss"), unit_vectors(3, DIM, seed=1))
    with home.running() as application, client_of(application) as client:
        state = client.wait(job.job_id)
    assert state.status == "failed"
    assert "have changed since" in (state.error or "")
    assert not home.index.exists()


def test_the_same_request_while_it_waits_is_the_same_job(home: Home) -> None:
    photos = draw_photos(home.photos, 3)
    write_pair(home.prefix, photos, unit_vectors(3, DIM))
    with local_application(home.settings, run_jobs=False, debug=False) as application:
        jobs = {application.legacy.adopt(home.options)[0].job_id for _ in range(2)}
    assert len(jobs) == 1
    state, _, _ = home.adopt()
    assert {state.job_id} == jobs


def test_a_crash_between_the_generation_and_the_database_is_made_good(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = draw_photos(home.photos, 4)
    (home.photos / "broken.jpg").write_bytes(b"no picture")
    write_pair(home.prefix, [*photos, home.photos / "broken.jpg"], unit_vectors(5, DIM))
    record = SqlCatalog.record_generation
    failures = [StorageError("The database is locked.")]

    def fail_once(self: SqlCatalog, *arguments: Any, **options: Any) -> None:
        if failures:
            raise failures.pop()
        record(self, *arguments, **options)

    monkeypatch.setattr(SqlCatalog, "record_generation", fail_once)
    state, _, _ = home.adopt()
    assert failures == []
    assert (state.status, state.progress.processed_images) == ("completed", 5)
    assert home.names() == [path.name for path in photos]
    manifest = DirectoryIndexFiles(home.index).current()
    assert manifest is not None
    assert (manifest.generation, manifest.images, len(manifest.segments)) == (1, 4, 1)
