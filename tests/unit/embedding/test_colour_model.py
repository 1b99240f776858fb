from __future__ import annotations

from imagedex.embedding import EmbeddingModel
from imagedex.testing.colour_model import ColourModel
from imagedex.testing.embedding_model import EmbeddingModelSuite


class TestColourModel(EmbeddingModelSuite):
    @classmethod
    def make_model(cls) -> EmbeddingModel:
        return ColourModel()
