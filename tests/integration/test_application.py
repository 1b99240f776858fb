"""The wired application: what it does with an index that is damaged, absent or another model's."""

import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from imagedex.app import Application, build_application
from imagedex.app.schedules import schedules
from imagedex.cli.connection import local_client
from imagedex.client import ServerProblem
from imagedex.core.errors import (
    CorruptIndex,
    FingerprintMismatch,
    ModelNotInstalled,
    StorageError,
)
from imagedex.core.ids import image_id_of
from imagedex.embedding import TextEncoder
from imagedex.embedding.bundled import BundledModel
from imagedex.embedding.runtimes import Precision
from imagedex.models import ModelStore, absent_model, find_model
from imagedex.search import Query
from imagedex.settings import load_settings
from support.tiny_models import write_tiny_clip
from support.vectors import make_index


def _application(home: Path, *, run_jobs: bool = True) -> Application:
    settings = load_settings(home=home, image_roots=(home.parent,), admin_key="x" * 20)
    return build_application(settings, run_jobs=run_jobs)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose index holds 30 images, known to its catalog."""
    make_index(tmp_path / "home" / "index", BundledModel(), 30)
    with closing(_application(tmp_path / "home")) as application:
        application.start()
    return tmp_path / "home"


def test_an_index_without_a_database_is_served_at_once(home: Path) -> None:
    for file in home.glob("imagedex.db*"):
        file.unlink()
    with closing(_application(home)) as application:
        application.start()
        assert len(application.query("a dog", top_k=5).results) == 5
        assert application.readiness() == {"database": "ok", "search": "ok"}


def test_an_application_with_a_damaged_index_starts_and_says_so(home: Path) -> None:
    next((home / "index" / "manifests").iterdir()).write_bytes(b"{}")
    with closing(_application(home)) as application:
        application.start()
        assert application.readiness()["database"] == "ok"
        assert "CorruptIndex" in application.readiness()["search"]
        assert str(home) not in application.readiness()["search"]
        with pytest.raises(CorruptIndex):
            application.query("a dog")


def test_an_index_whose_storage_is_gone_is_not_ready_and_not_empty(home: Path) -> None:
    (home / "index").rename(home / "unmounted")
    with closing(_application(home)) as application:
        application.start()
        assert "StorageError" in application.readiness()["search"]
        with pytest.raises(StorageError, match="Mount its storage"):
            application.query("a dog")
        (home / "unmounted").rename(home / "index")
        assert application.readiness()["search"] == "ok"
        assert len(application.query("a dog").results) == 10


def test_a_new_home_is_ready_and_finds_nothing(tmp_path: Path) -> None:
    with closing(_application(tmp_path / "home")) as application:
        application.start()
        assert application.readiness() == {"database": "ok", "search": "ok"}
        answer = application.query("a dog")
        assert (answer.results, answer.total_images, answer.generation) == ((), 0, 0)


def test_what_only_asks_works_beside_the_one_that_runs_the_jobs(home: Path) -> None:
    with closing(_application(home)) as owner, closing(_application(home, run_jobs=False)) as other:
        owner.start()
        other.start()
        assert len(other.query("a dog").results) == 10
        assert other.indexing.stats().num_images == 30


def test_an_index_is_served_by_its_own_model_whatever_is_set(home: Path, tmp_path: Path) -> None:
    with closing(_application(home, run_jobs=False)) as application:
        application.start()
        expected = application.query("a dog")
    settings = load_settings(home=home, model=str(write_tiny_clip(tmp_path / "tiny")))
    with closing(build_application(settings, run_jobs=False)) as other:
        other.start()
        assert other.model.name == "tiny"
        assert other.readiness()["search"] == "ok"
        answer = other.query("a dog")
        assert (answer.model_name, answer.results) == ("bundled", expected.results)


def test_an_index_of_a_model_that_is_not_here_is_refused_with_the_setting_that_helps(
    tmp_path: Path,
) -> None:
    home, model = tmp_path / "home", write_tiny_clip(tmp_path / "tiny")
    of_path = find_model(str(model), store=ModelStore(home / "models"))
    make_index(home / "index", of_path, 3)
    with closing(_application(home)) as application:
        application.start()
        with pytest.raises(
            FingerprintMismatch, match=r"'tiny' in fp32 .*'bundled'.*set IMAGEDEX_MODEL=tiny"
        ):
            application.query("a dog")
        assert "FingerprintMismatch" in application.readiness()["search"]


def test_closing_stops_the_jobs_before_it_waits_for_a_model_that_loads(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, is_loaded = threading.Event(), threading.Event()
    load = BundledModel.load_text_encoder

    def load_slowly(model: BundledModel, *, threads: int) -> TextEncoder:
        loading.set()
        assert is_loaded.wait(60)
        return load(model, threads=threads)

    monkeypatch.setattr(BundledModel, "load_text_encoder", load_slowly)
    application = _application(home)
    application.start()
    application.warm()
    assert loading.wait(60)
    closing_thread = threading.Thread(target=application.close)
    closing_thread.start()
    deadline = time.monotonic() + 60
    while runs := [t for t in threading.enumerate() if t.name.startswith("job-runner")]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    is_loaded.set()
    closing_thread.join(60)
    assert runs == []
    assert not closing_thread.is_alive()


@pytest.fixture
def old_home(tmp_path: Path) -> Path:
    """A home whose index is one of a model that is not installed."""
    model = absent_model("clip-ViT-L-14", precision=Precision.FP32, reduced_decoding=True)
    assert model is not None
    make_index(tmp_path / "home" / "index", model, 30)
    return tmp_path / "home"


def test_an_index_whose_model_is_not_installed_is_served_without_text_queries(
    old_home: Path,
) -> None:
    settings = load_settings(home=old_home, model="clip-ViT-L-14", image_roots=(old_home,))
    with closing(build_application(settings, run_jobs=True)) as application:
        application.start()
        stats = application.indexing.stats()
        assert (stats.num_images, stats.model_name) == (30, "clip-ViT-L-14")
        assert "imagedex models pull clip-ViT-L-14" in application.readiness()["search"]
        with pytest.raises(ModelNotInstalled):
            application.query("a dog")


def test_a_search_of_an_empty_index_says_that_the_model_is_missing(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", model="clip-ViT-L-14")
    with closing(build_application(settings, run_jobs=False)) as application:
        application.start()
        with pytest.raises(ModelNotInstalled, match="imagedex models pull clip-ViT-L-14"):
            application.query("a dog")


def test_a_text_query_without_its_model_is_answered_503_with_the_command(old_home: Path) -> None:
    settings = load_settings(home=old_home, model="clip-ViT-L-14")
    with local_client(settings, run_jobs=False, debug=False) as client:
        assert client.stats().num_images == 30
        with pytest.raises(ServerProblem, match="imagedex models pull clip-ViT-L-14") as caught:
            client.query("a dog")
        assert caught.value.status == 503
        # An image is asked with by its vector, which needs no model; a picture has none yet.
        image_id = image_id_of("/photos/000/picture-000007.jpg")
        answer = client.query(image_id=image_id, top_k=29)
        assert len(answer.results) == 29
        assert image_id not in [result.image_id for result in answer.results]
        with pytest.raises(ServerProblem, match="imagedex models pull clip-ViT-L-14") as caught:
            client.query_picture(b"no picture")
        assert caught.value.status == 503


def test_a_job_without_its_model_fails_with_the_command(old_home: Path) -> None:
    photos = old_home.parent / "photos"
    photos.mkdir()
    Image.new("RGB", (64, 48), "red").save(photos / "red.jpg")
    settings = load_settings(home=old_home, model="clip-ViT-L-14", image_roots=(photos,))
    with local_client(settings, run_jobs=True, debug=False) as client:
        state = client.wait(client.trigger(str(photos)).job_id)
        assert state.status == "failed"
        assert "imagedex models pull clip-ViT-L-14" in (state.error or "")


def test_a_picture_is_read_for_the_model_that_the_index_has(home: Path, tmp_path: Path) -> None:
    settings = load_settings(home=home, model=str(write_tiny_clip(tmp_path / "tiny")))
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    data = (tmp_path / "red.png").read_bytes()
    with closing(build_application(settings, run_jobs=False)) as application:
        application.start()
        picture = application.read_picture(data)
        assert picture.fingerprint == BundledModel().fingerprint
        assert len(application.search(Query((picture,), 3)).results) == 3
        other = replace(picture, fingerprint="other")
        with pytest.raises(FingerprintMismatch, match="send it again"):
            application.search(Query((other,), 3))


def test_backups_are_scheduled_of_a_file_and_not_of_a_database_on_a_server(
    database_url: str, tmp_path: Path
) -> None:
    settings = load_settings(
        home=tmp_path / "home", index_prefix=tmp_path / "index", database_url=database_url
    )
    with closing(build_application(settings, run_jobs=False)) as application:
        names = {one.name for one in schedules(application._base, application.snapshots)}
    assert names == ({"backup", "rebuild"} if "sqlite" in database_url else {"rebuild"})
