"""``imagedex eval`` with the bundled model."""

from __future__ import annotations

from pathlib import Path

from support.commands import Commands
from support.pictures import draw_pictures


def test_recall_counts_every_caption_also_those_whose_image_failed(tmp_path: Path) -> None:
    images = tmp_path / "images"
    names = [path.name for path in draw_pictures(images, 3)]
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    captions = tmp_path / "captions.tsv"
    lines = ["path\tcaption", *(f"{name}\tSome shapes." for name in names), "broken.png\tA cat."]
    captions.write_text("\n".join(lines))
    commands = Commands.local(tmp_path / "home")

    document = commands.json("eval", captions, "--images", images)

    assert document == {
        "R@1": 0.75,
        "R@5": 0.75,
        "R@10": 0.75,
        "images": 3,
        "captions": 4,
        "failed": 1,
        "model": "bundled",
    }
    assert not (tmp_path / "home").exists()


def test_captions_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    captions = tmp_path / "captions.tsv"
    captions.write_text("path\tcaption\n../secret.png\tA cat.\n")
    commands = Commands.local(tmp_path / "home")

    assert "line 2" in commands.fail("eval", captions, "--images", tmp_path)
    captions.write_text("path\tcaption\ncat.png\tA cat.\n")
    assert "is not a directory" in commands.fail("eval", captions, "--images", tmp_path / "no")
    assert "No image could be read" in commands.fail("eval", captions, "--images", tmp_path)
