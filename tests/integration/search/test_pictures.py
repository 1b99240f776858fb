"""Pictures that are asked with: decoded by a process with limits, whatever they are."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from imagedex.core.errors import EngineError, InvalidRequest, ModelNotInstalled
from imagedex.embedding import ImageEncoder
from imagedex.embedding.runtimes import Precision
from imagedex.ingest import DecodeLimits
from imagedex.models import absent_model
from imagedex.search import PictureReader
from imagedex.testing.colour_model import ColourModel
from imagedex.testing.hostile_images import damaged_png, encode, noise, png_bomb, quadrants


@dataclass(frozen=True, slots=True)
class _CountingModel(ColourModel):
    loaded: tuple[list[int], ...] = ([],)

    def load_image_encoder(self, *, threads: int) -> ImageEncoder:
        self.loaded[0].append(threads)
        return ColourModel.load_image_encoder(self, threads=threads)


@pytest.fixture
def model() -> _CountingModel:
    return _CountingModel(loaded=([],))


@pytest.fixture
def reader(model: _CountingModel) -> Iterator[PictureReader]:
    reader = PictureReader(model, limits=DecodeLimits(max_pixels=1_000_000), threads=2)
    yield reader
    reader.close()


def test_a_picture_becomes_the_vector_that_indexing_gives_it(
    reader: PictureReader, model: _CountingModel
) -> None:
    picture = quadrants()
    expected = (
        ColourModel()
        .load_image_encoder(threads=1)
        .encode_images(model.preprocess(picture)[np.newaxis])
    )
    for format_name in ("PNG", "BMP", "TIFF"):
        term = reader.read(encode(picture, format_name))
        np.testing.assert_array_equal(np.frombuffer(term.vector, np.float32), expected[0])
        assert len(term.content_hash) == 64
    assert model.loaded == ([2],)  # By the first picture, and once.


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"Dear Sir or Madam,", "not_an_image"),
        (encode(noise(), "JPEG")[:1500], "truncated"),
        (damaged_png(), "damaged"),
        (png_bomb(), "too_many_pixels"),
        (b"\x00" * 1_000_000, "not_an_image"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason_and_the_next_one_is_read(
    reader: PictureReader, data: bytes, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=rf"\({reason}\)"):
        reader.read(data)
    assert reader.read(encode(noise(), "PNG")).vector


def test_several_pictures_at_once_get_each_its_own_vector(reader: PictureReader) -> None:
    pictures = [encode(noise(seed=seed), "PNG") for seed in range(8)]
    alone = [reader.read(picture) for picture in pictures]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(reader.read, pictures))
    assert together == alone
    assert [term.vector for term in together] == [term.vector for term in alone]


def test_a_model_that_is_not_installed_is_told_before_anything_is_decoded() -> None:
    model = absent_model("clip-ViT-L-14", precision=Precision.FP32, reduced_decoding=True)
    assert model is not None
    reader = PictureReader(model, limits=DecodeLimits(), threads=1)
    with pytest.raises(ModelNotInstalled, match="models pull"):
        reader.read(b"no picture")
    reader.close()


def test_after_the_end_nothing_is_read(reader: PictureReader) -> None:
    reader.close()
    with pytest.raises(EngineError, match="closed"):
        reader.read(encode(noise(), "PNG"))
