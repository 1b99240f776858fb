"""Which model a name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagedex.core.errors import ModelError, ModelNotInstalled
from imagedex.embedding.runtimes import Precision
from imagedex.models import InstalledModel, ModelStore, find_model
from imagedex.testing.colour_model import ColourModel


def test_the_bundled_model_needs_no_store(store: ModelStore) -> None:
    assert find_model("bundled", store=store).name == "bundled"


def test_an_installed_model_is_found_by_its_name(
    store: ModelStore, installed: InstalledModel
) -> None:
    model = find_model("tiny", store=store)
    assert (model.name, model.dim) == ("tiny", 32)


def test_a_directory_is_a_model_under_its_own_name(store: ModelStore, tiny: Path) -> None:
    model = find_model(str(tiny), store=store)
    assert (model.name, model.dim) == ("tiny", 32)


def test_the_same_files_are_the_same_model_wherever_they_lie(
    store: ModelStore, tiny: Path, installed: InstalledModel
) -> None:
    first, second = (find_model(name, store=store) for name in ("tiny", str(tiny)))
    assert first.fingerprint == second.fingerprint


def test_precision_and_decoding_are_part_of_the_model(
    store: ModelStore, installed: InstalledModel
) -> None:
    fingerprints = {
        find_model("tiny", store=store).fingerprint,
        find_model("tiny", store=store, precision=Precision.BF16).fingerprint,
        find_model("tiny", store=store, reduced_decoding=False).fingerprint,
    }
    assert len(fingerprints) == 3


def test_a_known_model_that_is_not_installed_says_how_to_get_it(store: ModelStore) -> None:
    with pytest.raises(
        ModelNotInstalled, match=r"imagedex models pull clip-ViT-B-32\. .*--from-dir"
    ):
        find_model("clip-ViT-B-32", store=store)


def test_an_unknown_name_lists_the_known_ones(store: ModelStore, installed: InstalledModel) -> None:
    with pytest.raises(ModelError, match=r"no model 'vgg16'.*bundled, clip-ViT-B-32.*tiny"):
        find_model("vgg16", store=store)


def test_a_directory_that_is_not_there_is_named(store: ModelStore, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model directory"):
        find_model(str(tmp_path / "none"), store=store)
    with pytest.raises(ModelError, match="no model directory"):
        find_model("~nobody-of-this-name/model", store=store)


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8])
def test_the_bundled_model_refuses_other_precisions(
    store: ModelStore, precision: Precision
) -> None:
    with pytest.raises(ModelError, match=r"no precision but fp32.*IMAGEDEX_EMBEDDING__PRECISION"):
        find_model("bundled", store=store, precision=precision)


def offer(directory: Path, target: str) -> None:
    """Write what an installed package leaves behind that offers the model ``colours``."""
    package = directory / "offering-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: offering\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[imagedex.embedding_models]\ncolours = {target}\n")


def test_a_package_can_offer_a_model(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, "imagedex.testing.colour_model:ColourModel")
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(find_model("colours", store=store), ColourModel)
    with pytest.raises(ModelError, match="colours"):
        find_model("vgg16", store=store)
    with pytest.raises(ModelError, match="no precision but fp32"):
        find_model("colours", store=store, precision=Precision.INT8)


def test_a_package_whose_model_cannot_be_made_is_named(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(tmp_path, "imagedex.testing.colour_model:NoSuchModel")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"'colours' of the package 'offering'.*AttributeError"):
        find_model("colours", store=store)
