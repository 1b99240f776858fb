"""What is known of a model without its files."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from imagedex.core.errors import ModelError, ModelNotInstalled
from imagedex.embedding.clip import ClipModel
from imagedex.embedding.runtimes import Precision
from imagedex.models import KNOWN_MODELS, absent_model, find_model
from imagedex.models.records import KnownImageHalf
from imagedex.models.store import ModelStore
from support.tiny_models import write_tiny_clip

OLD = "clip-ViT-L-14"


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
@pytest.mark.parametrize("reduced_decoding", [True, False])
def test_the_fingerprint_is_the_one_that_the_files_will_have(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: Precision,
    reduced_decoding: bool,
) -> None:
    directory = write_tiny_clip(tmp_path / OLD, "transformers")
    installed = ClipModel.open(
        directory, name=OLD, precision=precision, reduced_decoding=reduced_decoding
    )
    graph = directory / "onnx" / "vision_model.onnx"
    half = KnownImageHalf(
        installed.specification.image, graph.name, hashlib.sha256(graph.read_bytes()).hexdigest()
    )
    known = {OLD: replace(KNOWN_MODELS[OLD], dim=installed.dim, image_half=half)}
    monkeypatch.setattr("imagedex.models.absent.KNOWN_MODELS", known)
    absent = absent_model(OLD, precision=precision, reduced_decoding=reduced_decoding)
    assert absent is not None
    assert absent.fingerprint == installed.fingerprint
    assert absent.input_shape == installed.input_shape
    assert (absent.name, absent.dim) == (installed.name, installed.dim)
    assert absent.preprocess == installed.preprocess


def test_the_multilingual_model_serves_an_index_of_the_old_one() -> None:
    fingerprints = set()
    for name in (OLD, "clip-ViT-L-14-multilingual"):
        model = absent_model(name, precision=Precision.FP32, reduced_decoding=True)
        assert model is not None
        fingerprints.add(model.fingerprint)
    assert len(fingerprints) == 1


def test_to_load_it_says_how_to_install_it() -> None:
    model = absent_model(OLD, precision=Precision.FP32, reduced_decoding=True)
    assert model is not None
    for load in (model.load_image_encoder, model.load_text_encoder):
        with pytest.raises(ModelNotInstalled, match=f"imagedex models pull {OLD} .*restart"):
            load(threads=1)


@pytest.mark.parametrize("name", ["bundled", "vgg16", "dfn-ViT-L-14"])
def test_of_other_models_too_little_is_known(name: str) -> None:
    assert absent_model(name, precision=Precision.FP32, reduced_decoding=True) is None


def test_int8_is_made_here_so_that_nothing_is_known_of_it(tmp_path: Path) -> None:
    assert absent_model(OLD, precision=Precision.INT8, reduced_decoding=True) is None
    with pytest.raises(ModelError, match="models pull"):
        find_model(OLD, store=ModelStore(tmp_path), precision=Precision.INT8)
