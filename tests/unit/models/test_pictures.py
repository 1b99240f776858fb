"""Which of the user's pictures a model is calibrated on and compared by."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.core.errors import InvalidRequest
from imagedex.embedding.clip import ClipModel
from imagedex.ingest import DecodeLimits
from imagedex.models.pictures import decode_pictures, open_decoder, pick_pictures
from support.pictures import draw_pictures


def test_the_same_folder_gives_the_same_choice_and_no_picture_twice(tmp_path: Path) -> None:
    paths = draw_pictures(tmp_path / "some" / "where", 12)
    chosen = pick_pictures(tmp_path, 5)
    assert len(set(chosen)) == 5
    assert set(chosen) <= {str(path) for path in paths}
    assert pick_pictures(tmp_path, 5) == chosen
    assert sorted(pick_pictures(tmp_path, 100)) == [str(path) for path in paths]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InvalidRequest, match=r"no image files.*--images"):
        pick_pictures(tmp_path, 5)
    with pytest.raises(InvalidRequest, match="no directory"):
        pick_pictures(tmp_path / "gone", 5)


def test_pictures_that_cannot_be_read_are_left_out(tmp_path: Path, tiny: Path) -> None:
    paths = [str(path) for path in draw_pictures(tmp_path / "pictures", 3)]
    Path(paths[1]).write_bytes(b"no picture")
    model = ClipModel.open(tiny, name="tiny")
    done: list[int] = []
    with open_decoder(model, tmp_path, threads=1, limits=DecodeLimits()) as decoder:
        pictures = list(decode_pictures(decoder, paths, done.append))
    assert [picture.shape for picture in pictures] == [model.input_shape] * 2
    assert done == [1, 2, 3]
