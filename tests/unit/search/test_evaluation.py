"""Recall, with the model of plain colours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from imagedex.core.images import FailureReason, FileStamp, ImageFacts, ImageFailure
from imagedex.embedding import PixelArray, VectorArray
from imagedex.ingest import DecodedImage
from imagedex.search.captions import CaptionedImage
from imagedex.search.evaluation import RecallReport, measure_recall
from imagedex.testing.colour_model import PALETTE, ColourEncoder

DIRECTORY = Path("/photos")


class ColourDecoder:
    """Pictures that are named after their colour: ``red-1.png``; any other name fails."""

    def decode(self, image_paths: Iterable[str]) -> Iterator[DecodedImage | ImageFailure]:
        for path in image_paths:
            colour = PALETTE.get(Path(path).stem.partition("-")[0])
            if colour is None:
                yield ImageFailure(path, FailureReason.NOT_AN_IMAGE, "No colour.")
            else:
                facts = ImageFacts(path, "00", FileStamp(1, 1), 8, 8, "PNG")
                yield DecodedImage(facts, np.full((8, 8, 3), colour, np.uint8))

    def close(self) -> None:
        """Nothing to give back."""


def _measure(captions: dict[str, str], batch_images: int = 2) -> RecallReport:
    entries = [CaptionedImage(path, caption) for path, caption in captions.items()]
    return measure_recall(
        entries,
        DIRECTORY,
        decoder=ColourDecoder(),
        image_encoder=ColourEncoder(),
        text_encoder=ColourEncoder(),
        batch_images=batch_images,
    )


def test_captions_that_describe_their_images_are_all_found_first() -> None:
    report = _measure({"red-1.png": "red", "blue-1.png": "blue", "green-1.png": "green"})

    assert report.recall == {1: 1.0, 5: 1.0, 10: 1.0}
    assert (report.images, report.captions, report.failures) == (3, 3, ())


def test_any_image_with_the_same_caption_counts_as_right() -> None:
    report = _measure({"red-1.png": "red", "blue-1.png": "red"})

    assert report.recall[1] == 1.0


def test_a_right_image_below_the_cut_counts_only_from_its_rank_on() -> None:
    # Eight red pictures score alike, so that their order is that of their paths.
    reds = {f"red-{number}.png": f"red {number}" for number in range(8)}

    report = _measure(reds)

    assert report.recall == {1: 1 / 8, 5: 5 / 8, 10: 1.0}


def test_equal_scores_rank_by_path_whatever_the_order_of_the_table() -> None:
    forwards = {f"red-{number}.png": f"red {number}" for number in range(8)}

    assert _measure(dict(reversed(forwards.items()))) == _measure(forwards)


@pytest.mark.parametrize("batch_images", [1, 2, 3, 64])
def test_the_size_of_a_batch_changes_nothing(batch_images: int) -> None:
    captions = {"black-1.png": "x black", "zzz.png": "y", "red-1.png": "red", "blue-2.png": "blue"}

    report = _measure(captions, batch_images)

    assert report.images == 3
    assert report.recall[1] == 3 / 4


def test_a_caption_whose_image_failed_counts_as_not_found() -> None:
    report = _measure({"red-1.png": "red", "broken.png": "blue"})

    assert report.recall[10] == 0.5
    assert [failure.image_path for failure in report.failures] == ["/photos/broken.png"]
    assert (report.images, report.captions) == (1, 2)


class _BlindToBlue(ColourEncoder):
    def encode_images(self, pixels: PixelArray) -> VectorArray:
        vectors = super().encode_images(pixels)
        vectors[(pixels == PALETTE["blue"]).all(axis=(1, 2, 3))] = np.nan
        return vectors


def test_an_image_without_a_vector_counts_as_failed() -> None:
    entries = [CaptionedImage(f"{colour}-1.png", colour) for colour in ("red", "blue")]
    report = measure_recall(
        entries,
        DIRECTORY,
        decoder=ColourDecoder(),
        image_encoder=_BlindToBlue(),
        text_encoder=ColourEncoder(),
        batch_images=2,
    )
    assert report.recall[1] == 0.5
    assert [failure.image_path for failure in report.failures] == ["/photos/blue-1.png"]


def test_without_any_image_nothing_is_found() -> None:
    report = _measure({"broken.png": "blue"})

    assert report.recall == {1: 0.0, 5: 0.0, 10: 0.0}
    assert report.images == 0
