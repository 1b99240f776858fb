"""The register: names, pinned commits and digests that can be what they say."""

from __future__ import annotations

import re

import pytest

from imagedex.models import KNOWN_MODELS, KnownModel, ModelStore
from imagedex.models.records import Half

MODELS = list(KNOWN_MODELS.values())


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_source_is_pinned_to_a_commit(
    model: KnownModel, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = ModelStore(tmp_path_factory.getbasetemp())
    assert store.directory_of(model.name).name == model.name
    for source in model.sources:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", source.repo)
        assert source.revision is not None
        assert re.fullmatch(r"[0-9a-f]{40}", source.revision)
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in source.sha256.values())


def test_the_multilingual_model_has_the_image_half_of_the_english_one() -> None:
    (english,) = KNOWN_MODELS["clip-ViT-L-14"].sources
    images, texts = KNOWN_MODELS["clip-ViT-L-14-multilingual"].sources
    assert (images.repo, images.revision) == (english.repo, english.revision)
    assert (images.half, texts.half) == (Half.IMAGE, Half.TEXT)


def test_the_models_of_the_old_system_and_better_ones_are_there() -> None:
    names = set(KNOWN_MODELS)
    assert {"clip-ViT-L-14", "clip-ViT-B-32", "dfn-ViT-L-14"} <= names
    assert KNOWN_MODELS["dfn-ViT-L-14"].dim == KNOWN_MODELS["clip-ViT-L-14"].dim == 768
