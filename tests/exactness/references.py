"""What transformers makes of pictures and texts, to hold the product's vectors against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipProcessor,
)

Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """A checkpoint as transformers runs it, padded to the full length as it was trained."""

    model: Any
    processor: Any
    length: int
    lowers: bool  # SigLIP 2 wants its texts in small letters, which its processor leaves to us.

    @classmethod
    def clip(cls, directory: Path) -> Reference:
        processor = CLIPProcessor(
            image_processor=CLIPImageProcessorPil.from_pretrained(directory),
            tokenizer=_tokenizer(directory),
        )
        model = CLIPModel.from_pretrained(directory, dtype=torch.float32).eval()
        return cls(model, processor, 77, lowers=False)

    @classmethod
    def siglip(cls, directory: Path) -> Reference:
        processor = SiglipProcessor(
            image_processor=SiglipImageProcessorPil.from_pretrained(directory),
            tokenizer=_tokenizer(directory),
        )
        model = SiglipModel.from_pretrained(directory, dtype=torch.float32).eval()
        return cls(model, processor, 64, lowers=True)

    def images(self, pictures: Sequence[Image.Image]) -> Vectors:
        """Return unit vectors of pictures."""
        fed = self.processor(images=list(pictures), return_tensors="pt")
        with torch.inference_mode():
            pooled = self.model.vision_model(pixel_values=fed["pixel_values"]).pooler_output
            projection = getattr(self.model, "visual_projection", torch.nn.Identity())
            return _unit(projection(pooled))

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of texts."""
        fed = self.processor(
            text=[text.lower() if self.lowers else text for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        with torch.inference_mode():
            pooled = self.model.text_model(input_ids=fed["input_ids"]).pooler_output
            projection = getattr(self.model, "text_projection", torch.nn.Identity())
            return _unit(projection(pooled))


def least_cosine(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the smallest cosine between rows of the same number."""
    assert first.shape == second.shape
    first, second = (_normalised(each.astype(np.float64)) for each in (first, second))
    return float((first * second).sum(axis=1).min())


def _tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    # By its file: from other files transformers 5 builds one that leaves out CLIP's merges.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    tokenizer.model_input_names = ["input_ids"]
    return tokenizer


def _unit(vectors: torch.Tensor) -> Vectors:
    return _normalised(vectors.numpy().astype(np.float64))


def _normalised(vectors: Vectors) -> Vectors:
    normalised: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalised
