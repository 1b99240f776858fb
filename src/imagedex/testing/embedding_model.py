"""What every embedding model must do; an adapter's tests subclass the suite.

class TestMyModel(EmbeddingModelSuite):
    def make_model(self) -> EmbeddingModel:
        return MyModel()
"""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imagedex.embedding import EmbeddingModel, ImageEncoder, TextEncoder, VectorArray

SIZES = ((1, 1), (2, 3), (1, 5000), (5000, 1), (224, 224), (640, 480), (31, 1999))
TEXTS = (
    "cat",
    "A dog playing in a park.",
    "",
    "   \n\t",
    "a photo of two red kites over the sea at dusk, seen from a cliff",
    "猫",
    "\N{SMILING CAT FACE WITH OPEN MOUTH}",
    "nul \x00 and half a surrogate pair \ud83d",
    "word " * 3000,
    "x" * 50_000,
)
# Float noise of another batch shape is allowed, a different answer is not.
LEAST_COSINE = 0.99999


def draw_picture(number: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Return a picture that differs for each ``number``."""
    random = np.random.default_rng(number)
    picture = Image.new("RGB", size, tuple(random.integers(0, 256, 3).tolist()))
    pen = ImageDraw.Draw(picture)
    for _ in range(6):
        left, top = (int(random.integers(0, edge)) for edge in size)
        box = (left, top, left + size[0] // 3, top + size[1] // 3)
        pen.ellipse(box, fill=tuple(random.integers(0, 256, 3).tolist()))
    return picture


def assert_alike(first: VectorArray, second: VectorArray) -> None:
    """Fail unless the rows of both point the same way, but for float noise."""
    assert first.shape == second.shape
    cosines = (first.astype(np.float64) * second).sum(axis=1)
    assert cosines.min() > LEAST_COSINE


class EmbeddingModelSuite:
    """Tests of the contract in ``imagedex.embedding.interfaces``."""

    @classmethod
    def make_model(cls) -> EmbeddingModel:
        """Return the model under test."""
        raise NotImplementedError("A subclass of EmbeddingModelSuite returns its model here.")

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> EmbeddingModel:
        return cls.make_model()

    @pytest.fixture(scope="class")
    @classmethod
    def images(cls, model: EmbeddingModel) -> ImageEncoder:
        return model.load_image_encoder(threads=1)

    @pytest.fixture(scope="class")
    @classmethod
    def texts(cls, model: EmbeddingModel) -> TextEncoder:
        return model.load_text_encoder(threads=1)

    def assert_vectors(self, vectors: VectorArray, count: int, dim: int) -> None:
        """Fail unless these are ``count`` finite float32 unit vectors."""
        assert vectors.dtype == np.float32
        assert vectors.shape == (count, dim)
        assert np.isfinite(vectors).all()
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)

    def test_describes_itself_alike_each_time_it_is_made(self, model: EmbeddingModel) -> None:
        other = self.make_model()
        assert model.name
        assert model.dim > 0
        assert model.fingerprint
        described = (model.name, model.dim, model.fingerprint, model.input_shape)
        assert described == (other.name, other.dim, other.fingerprint, other.input_shape)

    @pytest.mark.parametrize("size", SIZES)
    def test_preprocess_gives_its_input_shape_for_any_size(
        self, model: EmbeddingModel, size: tuple[int, int]
    ) -> None:
        pixels = model.preprocess(draw_picture(1, size))
        assert pixels.dtype == np.uint8
        assert pixels.shape == model.input_shape

    def test_preprocess_does_the_same_after_pickling(self, model: EmbeddingModel) -> None:
        copy = pickle.loads(pickle.dumps(model.preprocess))  # noqa: S301 - our own bytes
        picture = draw_picture(2)
        np.testing.assert_array_equal(copy(picture), model.preprocess(picture))

    def test_preprocess_leaves_the_picture_as_it_was(self, model: EmbeddingModel) -> None:
        picture = draw_picture(3)
        before = picture.tobytes()
        model.preprocess(picture)
        assert picture.tobytes() == before

    def test_image_vectors_are_float32_unit_rows(
        self, model: EmbeddingModel, images: ImageEncoder
    ) -> None:
        pixels = np.stack([model.preprocess(draw_picture(i, size)) for i, size in enumerate(SIZES)])
        self.assert_vectors(images.encode_images(pixels), len(SIZES), model.dim)

    def test_an_image_vector_depends_on_its_picture_alone(
        self, model: EmbeddingModel, images: ImageEncoder
    ) -> None:
        pixels = np.stack([model.preprocess(draw_picture(i)) for i in range(19)])
        together = images.encode_images(pixels)
        alone = np.concatenate([images.encode_images(row[None]) for row in pixels])
        assert_alike(together, alone)
        assert_alike(images.encode_images(pixels[::-1])[::-1], together)

    def test_pixels_are_left_as_they_were(
        self, model: EmbeddingModel, images: ImageEncoder
    ) -> None:
        pixels = np.stack([model.preprocess(draw_picture(i)) for i in range(2)])
        before = pixels.copy()
        images.encode_images(pixels)
        np.testing.assert_array_equal(pixels, before)

    def test_text_vectors_are_float32_unit_rows_whatever_the_text(
        self, model: EmbeddingModel, texts: TextEncoder
    ) -> None:
        encoded = texts.encode_texts(TEXTS)
        self.assert_vectors(encoded.vectors, len(TEXTS), model.dim)
        assert len(encoded.is_cut) == len(TEXTS)

    def test_a_text_vector_depends_on_its_text_alone(self, texts: TextEncoder) -> None:
        together = texts.encode_texts(TEXTS).vectors
        alone = np.concatenate([texts.encode_texts([text]).vectors for text in TEXTS])
        assert_alike(together, alone)
        assert_alike(texts.encode_texts(TEXTS[::-1]).vectors[::-1], together)

    def test_texts_are_encoded_alike_from_several_threads(self, texts: TextEncoder) -> None:
        queries = [f"{text[:60]} {number}" for number in range(5) for text in TEXTS]
        expected = texts.encode_texts(queries).vectors
        with ThreadPoolExecutor(max_workers=4) as pool:
            alone = list(pool.map(lambda text: texts.encode_texts([text]).vectors, queries))
        assert_alike(np.concatenate(alone), expected)

    def test_a_text_that_is_too_long_is_cut_and_that_is_said(self, texts: TextEncoder) -> None:
        long, longer = "word " * 3000 + "cat", "word " * 3000 + "ship"
        encoded = texts.encode_texts(["word", long, longer])
        assert encoded.is_cut == (False, True, True)
        assert_alike(encoded.vectors[1:2], encoded.vectors[2:])

    def test_a_second_load_gives_the_same_vectors(
        self, model: EmbeddingModel, images: ImageEncoder, texts: TextEncoder
    ) -> None:
        pixels = model.preprocess(draw_picture(4))[None]
        again = self.make_model()
        assert_alike(
            again.load_image_encoder(threads=2).encode_images(pixels), images.encode_images(pixels)
        )
        assert_alike(
            again.load_text_encoder(threads=2).encode_texts(["cat"]).vectors,
            texts.encode_texts(["cat"]).vectors,
        )
