from __future__ import annotations

import hashlib
import math
import pickle
import subprocess
import sys
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imagedex.embedding.clip.image_spec import ImageSpec
from imagedex.embedding.clip.preprocess import ClipPreprocess
from imagedex.embedding.interfaces import SupportsReducedDecoding

HALF = (0.5, 0.5, 0.5)
SIZES = ((640, 479), (335, 500), (1, 1), (50, 37), (2000, 225))
# What the libraries themselves made of ``pattern`` in these sizes: the first 16 digits of the
# SHA-256 of the pixels. OpenCLIP 3.3.0 with torchvision 0.29.2, transformers 5.23.0 with its
# image processors for Pillow, all with Pillow 13.0.0.
REFERENCES = {
    "openclip-shortest": (
        ImageSpec(224, 224, HALF, HALF, "bicubic", "shortest", "nearest", 7),
        "613729b132b02b96 9c6e2c612d932b83 7306b957ee5ed5c7 fde957eade025494 02cb9488cbd5ffd6",
    ),
    "openclip-odd": (
        ImageSpec(225, 225, HALF, HALF, "bilinear", "shortest", "nearest", 7),
        "d6e5b953864117d1 cba5b85202484aec 636280246d1f902b 6949dbb613bafccf dbe54b275e9b1b34",
    ),
    "openclip-portrait": (
        ImageSpec(256, 192, HALF, HALF, "bicubic", "shortest", "nearest", 7),
        "98275d2656a7a2fa 1784dd5dae8f9dc4 9270523cdf66031d 201a5cea76d86b3e 64aa194d683f1712",
    ),
    "openclip-squash": (
        ImageSpec(224, 224, HALF, HALF, "bicubic", "squash", "nearest", 7),
        "eeb6449131ba4b0c c1a08f85c86bb610 7306b957ee5ed5c7 9acf9bae2834efa5 be6b931f0680b58b",
    ),
    "openclip-longest": (
        ImageSpec(224, 224, HALF, HALF, "bicubic", "longest", "nearest", 7),
        "390116608afecdfa 5efe3a51089b4d20 7306b957ee5ed5c7 b2eb660f8e9301e1 96d77a297a051cd9",
    ),
    "transformers-clip": (
        ImageSpec(224, 224, HALF, HALF, "bicubic", "shortest", "down", 0),
        "dc23bc4dfd8df0d5 9c6e2c612d932b83 7306b957ee5ed5c7 fde957eade025494 fb1c3cbcc17e89d8",
    ),
    "transformers-clip-odd": (
        ImageSpec(225, 225, HALF, HALF, "bicubic", "shortest", "down", 0),
        "982c8729cc7b89a3 08721d9a326d61ad 636280246d1f902b 9df419c0cf693f6e d165246951ee02e9",
    ),
    "transformers-siglip2": (
        ImageSpec(224, 224, HALF, HALF, "bilinear", "squash", "down", 0),
        "ea7b68545a3cf4ca f44b82d0752df58f 7306b957ee5ed5c7 f4e6a119f8c4c4b4 18007b827e3342fe",
    ),
}
SHORTEST = REFERENCES["openclip-shortest"][0]
SQUASH = REFERENCES["openclip-squash"][0]
LONGEST = REFERENCES["openclip-longest"][0]
edges = st.integers(1, 6000)


def pattern(width: int, height: int) -> Image.Image:
    """Return a picture in which every pixel and every channel matters."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [(x * 7 + y * 13 + channel * 50 + x * y // 5) % 256 for channel in range(3)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


@pytest.mark.parametrize("name", REFERENCES)
def test_pixels_are_those_of_the_library_that_the_model_comes_from(name: str) -> None:
    spec, digests = REFERENCES[name]
    preprocess = ClipPreprocess(spec)
    found = [
        hashlib.sha256(np.ascontiguousarray(preprocess(pattern(*size))).tobytes()).hexdigest()[:16]
        for size in SIZES
    ]
    assert found == digests.split()


@pytest.mark.parametrize("spec", [SHORTEST, SQUASH, LONGEST, replace(SHORTEST, height=256)])
@pytest.mark.parametrize(
    "size", [(1, 1), (1, 20_000), (20_000, 1), (3, 2), (224, 224), (223, 224), (15_000, 220)]
)
def test_any_size_gives_the_models_size(spec: ImageSpec, size: tuple[int, int]) -> None:
    pixels = ClipPreprocess(spec)(Image.new("RGB", size, (9, 99, 200)))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (spec.height, spec.width, 3)
    if spec.resize != "longest":
        assert (pixels == (9, 99, 200)).all()


@pytest.mark.parametrize("size", [(14_560, 224), (224, 14_560), (30, 1_950)])
def test_only_the_middle_of_a_strip_is_made_and_is_what_the_whole_would_give(
    size: tuple[int, int],
) -> None:
    strip = pattern(*size).resize(size)
    spec = SHORTEST
    made = ClipPreprocess(spec)(strip).astype(int)
    scale = 224 / min(size)
    whole = strip.resize((int(size[0] * scale), int(size[1] * scale)), Image.Resampling.BICUBIC)
    left, top = ((edge - 224) // 2 for edge in whole.size)
    middle = np.asarray(whole.crop((left, top, left + 224, top + 224))).astype(int)
    assert np.abs(made - middle).mean() < 1


def test_a_grey_picture_becomes_colour() -> None:
    pixels = ClipPreprocess(SHORTEST)(Image.new("L", (10, 10), 77))
    assert (pixels == 77).all()


def test_the_rest_of_a_longest_picture_is_filled() -> None:
    pixels = ClipPreprocess(replace(LONGEST, fill=(1, 2, 3)))(Image.new("RGB", (200, 100), "red"))
    assert (pixels[:56] == (1, 2, 3)).all()
    assert (pixels[168:] == (1, 2, 3)).all()
    assert (pixels[56:168] == (255, 0, 0)).all()


def test_it_travels_to_another_process_without_a_model_runtime() -> None:
    preprocess = ClipPreprocess(SHORTEST, reduced_decoding=False)
    assert pickle.loads(pickle.dumps(preprocess)) == preprocess
    script = (
        "import pickle, sys; from PIL import Image; "
        f"step = pickle.loads({pickle.dumps(preprocess)!r}); "
        "assert step(Image.new('RGB', (3, 4))).shape == (224, 224, 3); "
        "assert not {'onnxruntime', 'openvino', 'onnx', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


class TestReducedDecoding:
    def test_it_is_part_of_the_version(self) -> None:
        assert ClipPreprocess(SHORTEST).version == "clip-1-reduced"
        assert ClipPreprocess(SHORTEST, reduced_decoding=False).version == "clip-1"

    def test_a_photo_may_be_decoded_at_an_eighth_a_quarter_or_a_half(self) -> None:
        preprocess = ClipPreprocess(SHORTEST)
        assert isinstance(preprocess, SupportsReducedDecoding)
        assert preprocess.enough_size(4000, 3600) == (500, 450)
        assert preprocess.enough_size(4000, 3000) == (1000, 750)
        assert preprocess.enough_size(3000, 4000) == (750, 1000)
        assert preprocess.enough_size(1600, 1200) == (800, 600)

    def test_a_picture_that_is_hardly_larger_than_its_result_is_decoded_whole(self) -> None:
        assert ClipPreprocess(SHORTEST).enough_size(890, 890) is None
        assert ClipPreprocess(SHORTEST).enough_size(224, 224) is None
        assert ClipPreprocess(SHORTEST).enough_size(1, 1) is None

    def test_a_size_that_would_move_the_crop_by_a_pixel_is_not_reduced(self) -> None:
        # 925 becomes 463, and 1000 x 925 is resized to 242 x 224 but 500 x 463 to 241 x 224.
        assert ClipPreprocess(SHORTEST).enough_size(1000, 925) is None
        assert ClipPreprocess(SQUASH).enough_size(1000, 925) == (500, 462)

    def test_it_can_be_turned_off(self) -> None:
        assert ClipPreprocess(SHORTEST, reduced_decoding=False).enough_size(4000, 3000) is None

    @given(
        width=edges,
        height=edges,
        spec=st.sampled_from([SHORTEST, SQUASH, LONGEST, replace(SHORTEST, height=256)]),
    )
    def test_what_pillow_decodes_is_twice_the_result_whichever_way_the_picture_is_turned(
        self, width: int, height: int, spec: ImageSpec
    ) -> None:
        enough = ClipPreprocess(spec).enough_size(width, height)
        if enough is None:
            return
        # As JpegImageFile.draft chooses.
        ratio = min(width // enough[0], height // enough[1])
        divisor = next(number for number in (8, 4, 2, 1) if number <= ratio)
        assert divisor > 1
        decoded = (math.ceil(width / divisor), math.ceil(height / divisor))
        for size, full in ((decoded, (width, height)), (decoded[::-1], (height, width))):
            ratios = (full[0] / spec.width, full[1] / spec.height)
            scale = {"shortest": min, "longest": max}.get(spec.resize, max)(ratios)
            needed = [2 * edge / scale for edge in full]
            if spec.resize == "squash":
                needed = [2 * spec.width, 2 * spec.height]
            assert all(edge >= need - 2 for edge, need in zip(size, needed, strict=True))

    @pytest.mark.parametrize("size", [(1600, 1200), (1203, 1799), (3000, 2001)])
    @pytest.mark.parametrize("spec", [SHORTEST, SQUASH])
    def test_a_reduced_picture_gives_nearly_the_same_pixels(
        self, size: tuple[int, int], spec: ImageSpec
    ) -> None:
        random = np.random.default_rng(4)
        coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        file = BytesIO()
        coarse.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        preprocess = ClipPreprocess(spec)
        with Image.open(file) as whole:
            expected = preprocess(whole).astype(float)
        with Image.open(file) as reduced:
            enough = preprocess.enough_size(*size)
            assert enough is not None
            reduced.draft(None, enough)
            assert reduced.size != size
            found = preprocess(reduced).astype(float)
        noise = ((found - expected) ** 2).mean()
        assert 10 * math.log10(255**2 / noise) > 35  # PSNR in decibels.
