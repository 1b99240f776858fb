"""The configuration files of published models, and what the loader makes of them.

They are copies; where each comes from stands in docs/models.md. Files of weights and of
vocabulary are not here, so that empty ones stand in for them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagedex.embedding.clip.configuration import Configuration, TextConfiguration
from imagedex.embedding.clip.files import ModelFiles, find_model_files
from imagedex.embedding.clip.graph_ports import TextPorts
from imagedex.embedding.clip.image_spec import ImageSpec
from imagedex.embedding.clip.specification import read_configuration, text_spec
from imagedex.embedding.clip.text_spec import Cleaning
from imagedex.models import KNOWN_MODELS, KnownModel

PUBLISHED = Path(__file__).parent / "published"
DOCUMENT = Path(__file__).parents[4] / "docs" / "models.md"

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
HALVES = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Expected:
    """What is known of a published model."""

    repo: str
    dim: int
    image: ImageSpec
    text: TextConfiguration


def open_clip(size: int) -> ImageSpec:
    return ImageSpec(size, size, OPENAI_MEAN, OPENAI_STD, "bicubic", "shortest", "nearest")


def squashed(size: int, interpolation: str, crop_rounding: str) -> ImageSpec:
    return ImageSpec(size, size, HALVES, HALVES, interpolation, "squash", crop_rounding)


CLIP_TEXT = TextConfiguration(77, is_causal=True, is_masked=True, cleaning=Cleaning.NONE)
# Its tokenizer.json makes letters small, so that being asked to adds nothing.
CLIP_TEXT_LOWER = TextConfiguration(77, is_causal=True, is_masked=True, cleaning=Cleaning.LOWER)
SIGLIP_TEXT = TextConfiguration(64, is_causal=False, is_masked=True, cleaning=Cleaning.CANONICAL)
SIGLIP_TEXT_LOWER = TextConfiguration(64, is_causal=False, is_masked=False, cleaning=Cleaning.LOWER)
XENOVA_CLIP = ImageSpec(224, 224, OPENAI_MEAN, OPENAI_STD, "bicubic", "shortest", "down")

MODELS = (
    Expected("immich-app/ViT-B-32__openai", 512, open_clip(224), CLIP_TEXT),
    Expected("immich-app/ViT-L-14__openai", 768, open_clip(224), CLIP_TEXT),
    Expected("immich-app/ViT-L-14-quickgelu__dfn2b", 768, open_clip(224), CLIP_TEXT),
    Expected("immich-app/XLM-Roberta-Large-Vit-L-14", 768, open_clip(224), CLIP_TEXT),
    Expected(
        "immich-app/ViT-B-16-SigLIP2__webli",
        768,
        squashed(224, "bicubic", "nearest"),
        SIGLIP_TEXT,
    ),
    Expected(
        "immich-app/ViT-B-32-SigLIP2-256__webli",
        768,
        squashed(256, "bicubic", "nearest"),
        SIGLIP_TEXT,
    ),
    Expected(
        "immich-app/ViT-SO400M-16-SigLIP2-384__webli",
        1152,
        squashed(384, "bicubic", "nearest"),
        SIGLIP_TEXT,
    ),
    Expected("Xenova/clip-vit-base-patch32", 512, XENOVA_CLIP, CLIP_TEXT_LOWER),
    Expected("Xenova/clip-vit-large-patch14", 768, XENOVA_CLIP, CLIP_TEXT_LOWER),
    Expected(
        "Xenova/siglip-base-patch16-224",
        768,
        squashed(224, "bicubic", "down"),
        SIGLIP_TEXT_LOWER,
    ),
    Expected(
        "onnx-community/siglip2-base-patch16-224-ONNX",
        768,
        squashed(224, "bilinear", "down"),
        SIGLIP_TEXT_LOWER,
    ),
)


# The SHA-256 of published files, as public manifests of other projects state them.
EXACT = {
    "immich-app__ViT-B-32__openai/config.json": (
        "59a182a6dce0adeb303f3d72d73758d68ba29516d928dd92740465f498290409"
    ),
    "immich-app__ViT-B-32__openai/visual/preprocess_cfg.json": (
        "c4fd008cd177c58a8fe107b099bac98913eaa6be6114dd59a4b45145c3c7673f"
    ),
    "immich-app__ViT-B-32__openai/textual/tokenizer_config.json": (
        "39bae5313c2da6467866dee758e754d69f0e302a875027b142531cb9c51c7c28"
    ),
    "Xenova__clip-vit-large-patch14/config.json": (
        "99d2f15ccaf4f72c1e4c656dc77ae0fa487696860617ea50626d3a14a018185d"
    ),
    "Xenova__clip-vit-large-patch14/preprocessor_config.json": (
        "6f638fb9401a6d6296feff533ee7efe657b787c49f954f82f5906b36ef2a1b1f"
    ),
    "Xenova__clip-vit-large-patch14/tokenizer_config.json": (
        "60ba2912bc6344c94bc16bbdec27fa1209409167b6f2fdf3cfe9e65462ea3967"
    ),
    "Xenova__siglip-base-patch16-224/config.json": (
        "e6de71291f181b0b81adc93098787bb4597a79dc18f59737feda8f41671fb6a2"
    ),
    "onnx-community__siglip2-base-patch16-224-ONNX/config.json": (
        "e43a9f7692d3819886a82cb2097048258d444f123c67d37ec825f9345b019cf2"
    ),
    "onnx-community__siglip2-base-patch16-224-ONNX/preprocessor_config.json": (
        "9b36b57ebaf20f09bf4c22100ccc21877ea6bfe5aead0c00c59f8af8ccefacfc"
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_copy_is_the_published_file(name: str) -> None:
    assert hashlib.sha256((PUBLISHED / name).read_bytes()).hexdigest() == EXACT[name]


def published_files(repo: str, directory: Path) -> ModelFiles:
    """Return the published configuration of ``repo``, made complete with empty files."""
    shutil.copytree(PUBLISHED / repo.replace("/", "__"), directory, dirs_exist_ok=True)
    is_immich = (directory / "visual").is_dir()
    names = (
        ("visual/model.onnx", "textual/model.onnx", "textual/tokenizer.json")
        if is_immich
        else ("onnx/vision_model.onnx", "onnx/text_model.onnx", "tokenizer.json")
    )
    for name in names:
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).touch()
    settings = (directory / names[2]).with_name("tokenizer_config.json")
    if not settings.exists():
        # Of these three the file is too long to keep, or was not found; what the loader reads of
        # it is known.
        is_siglip = "siglip2" in repo.lower()
        content = {"pad_token": "<pad>", "do_lower_case": is_siglip, "model_max_length": 10**30}
        settings.write_text(json.dumps(content))
    return find_model_files(directory)


@pytest.mark.parametrize("expected", MODELS, ids=lambda expected: expected.repo)
def test_a_published_configuration_is_read_as_it_is_meant(
    expected: Expected, tmp_path: Path
) -> None:
    found = read_configuration(published_files(expected.repo, tmp_path))
    assert isinstance(found, Configuration)
    assert found.dim in (expected.dim, None)
    assert found.image == expected.image
    assert found.text == expected.text


@pytest.mark.parametrize("model", KNOWN_MODELS.values(), ids=lambda model: model.name)
def test_the_register_knows_the_preprocessing_that_a_model_is_published_with(
    model: KnownModel, tmp_path: Path
) -> None:
    if model.image_half is None:
        return
    source = model.sources[0]
    files = published_files(source.repo, tmp_path)
    assert read_configuration(files).image == model.image_half.spec
    assert files.image_graph.name == model.image_half.graph
    assert source.sha256["onnx/vision_model.onnx"] == model.image_half.sha256


def test_siglip_leaves_its_length_to_the_graph(tmp_path: Path) -> None:
    repo = "onnx-community/siglip2-base-patch16-224-ONNX"
    assert read_configuration(published_files(repo, tmp_path)).dim is None


@pytest.mark.parametrize(
    ("repo", "length", "padded", "token"),
    [
        # Immich's exports have batch and length baked in; made free, they run at real length.
        ("immich-app/ViT-L-14__openai", 77, 77, None),
        ("immich-app/ViT-L-14__openai", None, None, None),
        ("Xenova/clip-vit-large-patch14", None, None, None),
        # SigLIP sees its padding, whatever axes its graph names.
        ("immich-app/ViT-B-32-SigLIP2-256__webli", 64, 64, "<pad>"),
        ("Xenova/siglip-base-patch16-224", None, 64, "</s>"),
        ("onnx-community/siglip2-base-patch16-224-ONNX", None, 64, "<pad>"),
    ],
)
def test_texts_of_a_published_model_are_padded_as_it_wants(
    tmp_path: Path, repo: str, length: int | None, padded: int | None, token: str | None
) -> None:
    files = published_files(repo, tmp_path)
    ports = TextPorts("text", "int32", None, length, None, "embedding", None)
    spec = text_spec(files, read_configuration(files), ports)
    assert spec.padded_length == padded
    assert spec.pad_token == token
    assert spec.padding_side == "right"
    assert not spec.is_masked


@pytest.mark.parametrize("length", [77, None])
def test_a_multilingual_tower_is_known_by_its_mask(tmp_path: Path, length: int | None) -> None:
    # Its config.json is that of CLIP's ViT-L/14 and says nothing of XLM-RoBERTa.
    files = published_files("immich-app/XLM-Roberta-Large-Vit-L-14", tmp_path)
    ports = TextPorts("input_ids", "int32", "attention_mask", length, 1, "embedding", 768)
    spec = text_spec(files, read_configuration(files), ports)
    assert spec.is_masked
    assert spec.padded_length == length
    assert not spec.ends_matter
    assert spec.cleaning is Cleaning.NONE


def test_every_published_file_is_documented_and_tested() -> None:
    repos = {path.name.replace("__", "/", 1) for path in PUBLISHED.iterdir()}
    assert repos == {expected.repo for expected in MODELS}
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [repo for repo in sorted(repos) if f"`{repo}`" not in text] == []
