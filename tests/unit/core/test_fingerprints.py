"""What is said when vectors of two models would be mixed."""

from __future__ import annotations

import pytest

from imagedex.core.fingerprints import ModelIdentity, way_back

STORED = ModelIdentity("clip-ViT-L-14", "clip-fp32-0123456789abcdef")


def test_a_fingerprint_of_clip_tells_its_precision() -> None:
    assert STORED.precision == "fp32"
    assert str(STORED) == "'clip-ViT-L-14' in fp32 (clip-fp32-0123456789abcdef)"


def test_another_fingerprint_tells_no_precision() -> None:
    bundled = ModelIdentity("bundled", "bundled-int8")
    assert bundled.precision is None
    assert str(bundled) == "'bundled' (bundled-int8)"


@pytest.mark.parametrize(
    ("used", "remedy"),
    [
        (
            ModelIdentity("bundled", "bundled-1"),
            "set IMAGEDEX_MODEL=clip-ViT-L-14 and IMAGEDEX_EMBEDDING__PRECISION=fp32, or",
        ),
        (
            ModelIdentity("clip-ViT-L-14", "clip-int8-fedcba9876543210"),
            "set IMAGEDEX_EMBEDDING__PRECISION=fp32, or",
        ),
        (
            ModelIdentity("clip-ViT-L-14", "clip-fp32-fedcba9876543210"),
            "set IMAGEDEX_DECODING__REDUCED as it was",
        ),
    ],
)
def test_the_remedy_names_the_setting_that_differs(used: ModelIdentity, remedy: str) -> None:
    assert remedy in way_back(STORED, used)
    assert way_back(STORED, used).endswith("or use another index prefix")


def test_an_index_of_the_bundled_model_asks_for_no_precision() -> None:
    bundled = ModelIdentity("bundled", "bundled-1")
    assert way_back(bundled, STORED) == "set IMAGEDEX_MODEL=bundled, or use another index prefix"
