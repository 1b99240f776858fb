"""Embedding models: what turns pictures and texts into unit vectors of one space."""

from imagedex.embedding.interfaces import (
    EmbeddingModel,
    EncodedTexts,
    ImageEncoder,
    PixelArray,
    Preprocess,
    SupportsReducedDecoding,
    TextEncoder,
    VectorArray,
)
from imagedex.embedding.models import find_model

__all__ = [
    "EmbeddingModel",
    "EncodedTexts",
    "ImageEncoder",
    "PixelArray",
    "Preprocess",
    "SupportsReducedDecoding",
    "TextEncoder",
    "VectorArray",
    "find_model",
]
