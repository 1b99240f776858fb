"""The wired application: what it does with an index that is damaged, absent or another model's."""

from contextlib import closing
from pathlib import Path

import pytest

from imagedex.app import Application, build_application
from imagedex.core.errors import CorruptIndex, StorageError
from imagedex.embedding import find_model
from imagedex.settings import load_settings
from support.vectors import make_index


def _application(home: Path, *, run_jobs: bool = True) -> Application:
    settings = load_settings(home=home, image_roots=(home.parent,), admin_key="x" * 20)
    return build_application(settings, run_jobs=run_jobs)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose index holds 30 images, known to its catalog."""
    make_index(tmp_path / "home" / "index", find_model("bundled"), 30)
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
