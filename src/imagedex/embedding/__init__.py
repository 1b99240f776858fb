"""Embedding models: what turns pictures and texts into unit vectors of one space."""

from imagedex.embedding.interfaces import (
    EmbeddingModel,
    ImageEncoder,
    PixelArray,
    Preprocess,
    TextEncoder,
    VectorArray,
)
from imagedex.embedding.models import find_model

__all__ = [
    "EmbeddingModel",
    "ImageEncoder",
    "PixelArray",
    "Preprocess",
    "TextEncoder",
    "VectorArray",
    "find_model",
]
