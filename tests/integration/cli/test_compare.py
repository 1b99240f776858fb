"""``imagedex compare``: an old index beside the one that was made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.commands import Commands
from support.old_indexes import draw_photos, unit_vectors, write_pair, write_parquet
from support.tiny_models import write_tiny_clip

pytestmark = pytest.mark.usefixtures("ready_programs")

DIM = 32
TEXTS = ["a dog in a park", "two cats", "a red car", "the sea at night"]


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    """Commands whose model is a tiny CLIP; beside it an old index of 30 pictures, and queries."""
    model = write_tiny_clip(tmp_path / "tiny")
    photos = draw_photos(tmp_path / "photos", 30)
    write_pair(tmp_path / "old", [path.name for path in photos], unit_vectors(30, DIM))
    (tmp_path / "queries.txt").write_text("\n\n".join(TEXTS) + "\n", "utf-8")
    return Commands.local(tmp_path / "home", IMAGEDEX_MODEL=str(model))


def arguments(tmp_path: Path, old: str = "old") -> tuple[str | Path, ...]:
    return (
        "compare", "--legacy", tmp_path / old, "--queries", tmp_path / "queries.txt",
        "--root", tmp_path / "photos",
    )  # fmt: skip


def adopt(commands: Commands, tmp_path: Path) -> None:
    model = commands.environment["IMAGEDEX_MODEL"]
    commands.run("import-legacy", tmp_path / "old", "--root", tmp_path / "photos", "--model", model)


def test_both_find_the_same(commands: Commands, tmp_path: Path) -> None:
    adopt(commands, tmp_path)
    report = commands.json(*arguments(tmp_path))
    assert (report["overlap"], report["same_first"], report["rank_correlation"]) == (1, 1, 1)
    assert [query["text"] for query in report["queries"]] == TEXTS
    assert (report["old_images"], report["new_images"], report["top_k"]) == (30, 30, 10)
    # The Parquet file alone is searched to the same end.
    (tmp_path / "old.faiss").rename(tmp_path / "away.faiss")
    again = commands.json(*arguments(tmp_path), "-k", "30")
    assert (again["overlap"], again["rank_correlation"]) == (1, 1)


def test_what_is_missing_shows(commands: Commands, tmp_path: Path) -> None:
    for number in range(0, 30, 2):
        (tmp_path / "photos" / f"{number:06d}.jpg").unlink()
    adopt(commands, tmp_path)
    done = commands.run(*arguments(tmp_path), "-k", "30")
    assert "overlap@30        0.5000" in done.stdout
    assert "rank correlation  1.0000" in done.stdout
    assert "30 old, 15 new" in done.stdout
    assert "overlap 0.50: a dog in a park" in done.stderr


def test_it_says_what_keeps_it_from_comparing(commands: Commands, tmp_path: Path) -> None:
    assert "import-legacy" in commands.fail(*arguments(tmp_path))
    adopt(commands, tmp_path)
    names = [f"{number}.jpg" for number in range(3)]
    write_parquet(tmp_path / "wide.parquet", names, unit_vectors(3, DIM + 1))
    assert "have 33 numbers, but those of texts 32" in commands.fail(*arguments(tmp_path, "wide"))
    assert "no file" in commands.fail(*arguments(tmp_path, "none"))
    (tmp_path / "queries.txt").write_text("\n \n", "utf-8")
    assert "holds no text" in commands.fail(*arguments(tmp_path))


def test_without_the_model_it_names_the_command(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 3)
    write_pair(tmp_path / "old", [path.name for path in photos], unit_vectors(3, 768))
    (tmp_path / "queries.txt").write_text("a dog\n", "utf-8")
    commands = Commands.local(tmp_path / "home", IMAGEDEX_MODEL="clip-ViT-L-14")
    commands.run("import-legacy", tmp_path / "old", "--root", tmp_path / "photos")
    assert "imagedex models pull clip-ViT-L-14" in commands.fail(*arguments(tmp_path))


def test_vectors_without_a_direction_are_never_among_the_best(
    commands: Commands, tmp_path: Path
) -> None:
    vectors = unit_vectors(30, DIM)
    vectors[3] = np.nan
    names = [f"{number:06d}.jpg" for number in range(30)]
    (tmp_path / "old.faiss").unlink()
    write_parquet(tmp_path / "old.parquet", names, vectors)
    adopt(commands, tmp_path)
    report = commands.json(*arguments(tmp_path), "-k", "5")
    assert report["overlap"] == 1
