"""Embedding models: what turns pictures and texts into unit vectors of one space."""

from imagedex.embedding.interfaces import (
    EmbeddingModel,
    EncodedTexts,
    ImageEncoder,
    PixelArray,
    Preprocess,
    SupportsReducedDecoding,
    SupportsRelocation,
    TextEncoder,
    VectorArray,
    VectorSpace,
)

__all__ = [
    "EmbeddingModel",
    "EncodedTexts",
    "ImageEncoder",
    "PixelArray",
    "Preprocess",
    "SupportsReducedDecoding",
    "SupportsRelocation",
    "TextEncoder",
    "VectorArray",
    "VectorSpace",
]
