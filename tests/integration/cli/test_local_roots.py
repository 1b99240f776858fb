"""Which directories a run on the local home may read."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.app import build_application
from imagedex.cli.local_roots import with_local_roots
from imagedex.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of a new home without image roots."""
    return load_settings(home=tmp_path / "home")


def _request(settings: Settings, directory: Path) -> None:
    """Leave two unfinished jobs: one for the directory, one for files of another below it."""
    files = directory / "files"
    files.mkdir(parents=True)
    application = build_application(
        settings.model_copy(update={"image_roots": (directory,)}), run_jobs=False
    )
    try:
        application.start()
        application.indexing.trigger(str(directory))
        application.indexing.notify([str(files / "a.png"), str(files / "b.png")])
    finally:
        application.close()


def test_what_the_operator_names_is_a_root(settings: Settings, tmp_path: Path) -> None:
    assert with_local_roots(settings, [tmp_path]).image_roots == (tmp_path,)


def test_unfinished_jobs_keep_the_directories_that_they_were_allowed(
    settings: Settings, tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier"
    _request(settings, earlier)

    roots = with_local_roots(settings, [tmp_path / "now"]).image_roots

    assert roots[0] == tmp_path / "now"
    assert sorted(roots[1:]) == [earlier, earlier / "files"]


def test_roots_that_are_set_stay_the_rule(settings: Settings, tmp_path: Path) -> None:
    _request(settings, tmp_path / "earlier")
    ruled = settings.model_copy(update={"image_roots": (tmp_path / "allowed",)})

    assert with_local_roots(ruled, [tmp_path / "now"]) == ruled
