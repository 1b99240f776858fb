"""Which files of a repository are taken, and which names are refused."""

from __future__ import annotations

import pytest

from imagedex.core.errors import ModelError
from imagedex.models.records import Half
from imagedex.models.wanted_files import wanted_files

IMMICH = [
    "config.json",
    "textual/model.onnx",
    "textual/tokenizer.json",
    "textual/tokenizer_config.json",
    "visual/model.onnx",
    "visual/preprocess_cfg.json",
]
TRANSFORMERS = [
    "config.json",
    "onnx/text_model.onnx",
    "onnx/vision_model.onnx",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


@pytest.mark.parametrize("layout", [IMMICH, TRANSFORMERS])
def test_a_model_of_either_layout_is_taken_whole(layout: list[str]) -> None:
    assert wanted_files(layout, Half.BOTH, where="there") == tuple(layout)


def test_other_runtimes_precisions_and_documents_stay() -> None:
    others = [
        "README.md",
        ".gitattributes",
        "visual/model.armnn",
        "visual/fp16/model.armnn",
        "visual/rknpu/rk3588/model.rknn",
        "visual/model_int8.onnx",
        "visual/model_int8.json",
        "visual/model_int8-0a1b2c3d.xml",
        "visual/model_int8-0a1b2c3d.bin",
        "textual/model_int8.json",
        "textual/model_int8-0a1b2c3d.onnx",
        "textual/model_fp16.onnx",
        "textual/vocab.json",
        "textual/merges.txt",
    ]
    assert wanted_files([*IMMICH, *others], Half.BOTH, where="there") == tuple(IMMICH)
    others = [
        "README.md",
        "model.safetensors",
        "onnx/model.onnx",
        "onnx/vision_model_fp16.onnx",
        "onnx/vision_model_fp16.onnx_data",
        "onnx/text_model_quantized.onnx",
        "quantize_config.json",
    ]
    assert wanted_files([*TRANSFORMERS, *others], Half.BOTH, where="there") == tuple(TRANSFORMERS)


def test_weights_beside_a_graph_are_taken_under_whatever_name() -> None:
    weights = ["textual/onnx__MatMul_2531", "textual/LinearTransformation.weight"]
    assert set(weights) <= set(wanted_files([*IMMICH, *weights], Half.BOTH, where="there"))
    weights = ["onnx/vision_model.onnx_data", "onnx/vision_model.onnx_data_1"]
    assert set(weights) <= set(wanted_files([*TRANSFORMERS, *weights], Half.BOTH, where="there"))


def test_half_a_model_is_taken_alone() -> None:
    assert wanted_files(IMMICH, Half.TEXT, where="there") == tuple(IMMICH[1:4])
    assert wanted_files(TRANSFORMERS, Half.IMAGE, where="there") == (
        "config.json",
        "onnx/vision_model.onnx",
        "preprocessor_config.json",
    )


def test_halves_of_different_layouts_make_one_model() -> None:
    mixed = [
        "config.json",
        "onnx/vision_model.onnx",
        "preprocessor_config.json",
        "textual/model.onnx",
        "textual/tokenizer.json",
    ]
    assert wanted_files(mixed, Half.BOTH, where="there") == tuple(mixed)


def test_what_lacks_a_half_is_told_what_was_expected() -> None:
    with pytest.raises(ModelError, match=r"a/b has no text half.*textual/tokenizer\.json"):
        wanted_files([path for path in IMMICH if "textual" not in path], Half.BOTH, where="a/b")


@pytest.mark.parametrize(
    "name",
    ["visual/..", "visual/.hidden", "visual/a\\b", "visual/a\nb", "visual/a\x00b", "visual/"],
)
def test_a_name_that_leads_elsewhere_or_hides_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="no plain name"):
        wanted_files([*IMMICH, name], Half.BOTH, where="there")


@pytest.mark.parametrize("name", ["visual/../../evil", "/visual/evil", "../visual/evil"])
def test_a_file_outside_the_folders_is_never_taken(name: str) -> None:
    assert wanted_files([*IMMICH, name], Half.BOTH, where="there") == tuple(IMMICH)
