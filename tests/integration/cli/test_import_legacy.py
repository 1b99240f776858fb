"""``imagedex import-legacy`` as an operator meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.commands import Commands
from support.old_indexes import draw_photos, unit_vectors, write_pair

DIM = 768


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Four pictures, with an old index of them."""
    photos = draw_photos(tmp_path / "photos", 4)
    vectors = unit_vectors(4, DIM)
    vectors[3] *= 2
    write_pair(tmp_path / "old", [path.name for path in photos], vectors)
    return photos


def test_it_says_what_it_finds_and_what_comes_of_it(photos: list[Path], tmp_path: Path) -> None:
    photos[2].unlink()
    commands = Commands.local(tmp_path / "home")
    done = commands.run("import-legacy", tmp_path / "old", "--root", tmp_path / "photos")
    assert done.stdout.startswith("3 images up to date, 1 failed")
    assert f"vanished: 1 image\n    {photos[2]}" in done.stdout
    assert "4 rows; paths from column 'path', 768 numbers a vector from IndexFlatIP." in done.stderr
    assert "vectors of both files agree in every row" in done.stderr
    assert "1 vector: not of unit length" in done.stderr
    assert "set IMAGEDEX_MODEL=clip-ViT-L-14 (imagedex models pull clip-ViT-L-14)" in done.stderr
    assert "error" not in done.stderr

    again = commands.json("import-legacy", tmp_path / "old", "--root", tmp_path / "photos")
    assert again["status"] == "completed"
    assert again["failures_by_reason"] == {"vanished": 1}
    assert again["old_index"]["images"] == 4

    served = Commands.local(tmp_path / "home", IMAGEDEX_MODEL="clip-ViT-L-14")
    assert served.json("stats")["num_images"] == 3
    assert "imagedex models pull clip-ViT-L-14" in served.fail("search", "a dog")


def test_it_says_what_stands_in_its_way(photos: list[Path], tmp_path: Path) -> None:
    commands = Commands.local(tmp_path / "home")
    assert "--root" in commands.fail("import-legacy", tmp_path / "old")
    assert "no file" in commands.fail("import-legacy", tmp_path / "none", "--root", tmp_path)
    outside = commands.fail(
        "import-legacy", tmp_path / "old", "--root", photos[0].parent, "--index-prefix", "/srv/x"
    )
    assert "IMAGEDEX_INDEX_ROOTS" in outside
    assert not (tmp_path / "home" / "index").exists()
