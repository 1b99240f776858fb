"""Which model an index is served by."""

from dataclasses import dataclass

import pytest

from imagedex.core.errors import FingerprintMismatch, ModelError, ModelNotInstalled
from imagedex.core.fingerprints import ModelIdentity
from imagedex.embedding import EmbeddingModel
from imagedex.embedding.runtimes import Precision
from imagedex.models import IndexModels, absent_model
from imagedex.testing.colour_model import ColourModel


@dataclass
class _Shelf:
    """Finds one model by its name, and counts how often it was asked."""

    model: EmbeddingModel | None
    asked: int = 0

    def find(self, name: str, precision: Precision) -> EmbeddingModel:
        self.asked += 1
        assert precision is Precision.FP32
        if self.model is None:
            raise ModelError(f"There is no model {name!r}.")
        return self.model


_OF_VERSION_1 = ModelIdentity("colours", "colours-1")


def test_a_new_index_and_one_of_its_vectors_have_the_model_that_is_set() -> None:
    shelf, default = _Shelf(None), ColourModel(1)
    models = IndexModels(default, shelf.find)
    assert models.of(None) is default
    # Whatever it was called then: another name can mean the same vectors.
    assert models.of(ModelIdentity("another name", "colours-1")) is default
    assert shelf.asked == 0


def test_an_index_of_another_model_keeps_it_and_it_is_looked_for_once() -> None:
    own = ColourModel(1)
    shelf = _Shelf(own)
    models = IndexModels(ColourModel(2), shelf.find)
    assert models.of(_OF_VERSION_1) is own
    assert models.of(_OF_VERSION_1) is own
    assert shelf.asked == 1


@pytest.mark.parametrize("found", [ColourModel(3), None])
def test_a_model_that_makes_other_vectors_or_is_not_there_is_refused(
    found: EmbeddingModel | None,
) -> None:
    models = IndexModels(ColourModel(2), _Shelf(found).find)
    with pytest.raises(FingerprintMismatch, match=r"colours-1.*colours-2.*imagedex models use"):
        models.of(_OF_VERSION_1)


def test_a_model_that_is_not_installed_is_looked_for_each_time() -> None:
    absent = absent_model("clip-ViT-L-14", precision=Precision.FP32, reduced_decoding=True)
    assert absent is not None
    shelf = _Shelf(absent)
    models = IndexModels(ColourModel(2), shelf.find)
    stored = ModelIdentity(absent.name, absent.fingerprint)
    assert models.of(stored) is models.of(stored)
    assert shelf.asked == 2


def test_a_known_model_of_which_too_little_is_pinned_says_how_to_get_it() -> None:
    def find(name: str, _precision: Precision) -> EmbeddingModel:
        raise ModelNotInstalled(f"imagedex models pull {name}")

    with pytest.raises(ModelNotInstalled, match="pull colours"):
        IndexModels(ColourModel(2), find).of(_OF_VERSION_1)
