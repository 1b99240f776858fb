"""The table of test images and their captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.core.errors import InvalidRequest
from imagedex.search.captions import CaptionedImage, read_captions


def _read(tmp_path: Path, content: str | bytes) -> tuple[CaptionedImage, ...]:
    file = tmp_path / "captions.tsv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_captions(file)


def test_each_line_is_a_path_and_a_caption(tmp_path: Path) -> None:
    entries = _read(tmp_path, "path\tcaption\na/b.png\tA frog.\nGröße.png\tA \u2028 line\n\n")

    assert entries == (
        CaptionedImage("a/b.png", "A frog."),
        CaptionedImage("Größe.png", "A \u2028 line"),
    )


def test_files_of_other_systems_are_read_too(tmp_path: Path) -> None:
    entries = _read(tmp_path, b"\xef\xbb\xbfpath\tcaption\r\na.png\tA frog.\r\n")

    assert entries == (CaptionedImage("a.png", "A frog."),)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "header"),
        ("a.png\tA frog.\n", "header"),
        ("caption\tpath\n", "header"),
        ("path\tcaption\n", "no image"),
        ("path\tcaption\na.png\n", "line 2"),
        ("path\tcaption\na.png\t \n", "line 2"),
        ("path\tcaption\n\tA frog.\n", "line 2"),
        ("path\tcaption\na.png\tA frog.\textra\n", "line 2"),
        ("path\tcaption\na.png\tx\n\na.png\ty\n", "line 4"),
        ("path\tcaption\n/etc/passwd\tx\n", "inside"),
        ("path\tcaption\na/../../b\tx\n", "inside"),
        (b"path\tcaption\n\xff\tx\n", "UTF-8"),
    ],
)
def test_what_is_no_such_table_is_told_with_its_line(
    tmp_path: Path, content: str | bytes, told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told):
        _read(tmp_path, content)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        read_captions(tmp_path / "captions.tsv")
