from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from imagedex.core.errors import ModelError
from imagedex.embedding.clip.image_spec import ImageSpec

SPEC = ImageSpec(224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "shortest")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"interpolation": "random"}, "interpolation 'random'.*bicubic"),
        ({"resize": "stretch"}, "resize 'stretch'.*squash"),
        ({"crop_rounding": "up"}, "crop rounding 'up'.*down"),
        ({"height": 0}, "0 x 224 pixels"),
        ({"width": -1}, "224 x -1 pixels"),
        ({"std": (0.5, 0.0, 0.5)}, r"divides by std \(0\.5, 0\.0, 0\.5\)"),
        ({"std": (0.5, float("nan"), 0.5)}, "divides by std"),
        ({"fill": 256}, "fills with colour 256"),
        ({"fill": "white"}, "fills with colour 'white'"),
        ({"fill": (1, 2)}, "fills with colour"),
        ({"fill": [1, 2, 3]}, "fills with colour"),
        ({"fill": None}, "fills with colour None"),
    ],
)
def test_what_no_preprocessing_can_do_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        replace(SPEC, **change)


@pytest.mark.parametrize("fill", [0, 255, (1, 2, 3)])
def test_a_colour_is_one_number_or_three(fill: int | tuple[int, int, int]) -> None:
    assert replace(SPEC, fill=fill).fill == fill
