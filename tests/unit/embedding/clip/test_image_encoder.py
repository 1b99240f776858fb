from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.image_encoder import ClipImageEncoder
from imagedex.embedding.clip.image_spec import ImageSpec
from imagedex.embedding.runtimes import PixelInput, Runtime, load_graph
from support.small_graphs import DIM, SIDE, image_graph

SPEC = ImageSpec(SIDE, SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "squash")
PICTURES = np.random.default_rng(3).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


def encoder(path: Path, *, dim: int = DIM) -> ClipImageEncoder:
    """Load the encoder of an image graph."""
    pixels = PixelInput("image", SPEC.mean, SPEC.std, SPEC.height, SPEC.width)
    runner = load_graph(path, threads=1, output="embedding", pixels=pixels)
    return ClipImageEncoder(runner, spec=SPEC, dim=dim)


def test_vectors_are_unit_rows_in_the_order_of_the_pictures(tmp_path: Path) -> None:
    images = encoder(image_graph(tmp_path / "model.onnx"))
    vectors = images.encode_images(PICTURES)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    alone = np.concatenate([images.encode_images(picture[None]) for picture in PICTURES])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, SIDE, SIDE, 3), dtype=np.float32),
        np.zeros((1, 3, SIDE, SIDE), dtype=np.uint8),
        np.zeros((SIDE, SIDE, 3), dtype=np.uint8),
        np.zeros((0, SIDE, SIDE, 3), dtype=np.uint8),
    ],
)
def test_other_pixels_than_the_models_are_refused(
    tmp_path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> None:
    with pytest.raises(ValueError, match=r"uint8 pixels of shape \(n, \*\(8, 8, 3\)\), n >= 1"):
        encoder(image_graph(tmp_path / "model.onnx")).encode_images(pixels)


def test_vectors_of_another_length_than_the_models_are_refused(tmp_path: Path) -> None:
    images = encoder(image_graph(tmp_path / "model.onnx"), dim=DIM + 1)
    with pytest.raises(ModelError, match=r"shape \(3, 4\) for 3 pictures; expected is \(3, 5\)"):
        images.encode_images(PICTURES)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_vectors_without_a_direction_are_refused(tmp_path: Path, value: float) -> None:
    path = image_graph(tmp_path / "model.onnx")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "second":
            numbers = np.full_like(numpy_helper.to_array(tensor), value)
            tensor.CopyFrom(numpy_helper.from_array(numbers, "second"))
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"zero or not finite.*fp32"):
        encoder(path).encode_images(PICTURES)


class _Rows:
    """A graph that gives these rows, whatever the pictures."""

    runtime = Runtime.ONNXRUNTIME

    def __init__(self, *rows: list[float]) -> None:
        self._rows = np.array(rows, dtype=np.float32)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        return self._rows


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_picture_without_a_direction_does_not_fail_those_beside_it(bad: float) -> None:
    runner = _Rows([3.0, 4.0], [bad, bad], [0.0, -2.0])
    vectors = ClipImageEncoder(runner, spec=SPEC, dim=2).encode_images(PICTURES)
    np.testing.assert_allclose(vectors[[0, 2]], [[0.6, 0.8], [0.0, -1.0]])
    assert np.isnan(vectors[1]).all()
    alone = ClipImageEncoder(_Rows([bad, bad]), spec=SPEC, dim=2).encode_images(PICTURES[:1])
    assert np.isnan(alone).all()
