"""What an embedding model is to the rest of Imagedex.

A model is described by an :class:`EmbeddingModel`, which is cheap to make and holds no
weights. Its two halves are loaded apart, because they live in different processes: workers
load the image half, the controller loads the text half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imagedex.core.paths import PathMapping

PixelArray = NDArray[np.uint8]
VectorArray = NDArray[np.float32]


class Preprocess(Protocol):
    """Turn one decoded picture into the model's input pixels.

    It is picklable and needs no model runtime, since it runs in the decoder processes; only
    its small result travels to the process that holds the model.
    """

    def __call__(self, image: Image.Image) -> PixelArray:
        """Return uint8 pixels of the model's fixed ``input_shape`` for an RGB picture."""
        ...


@runtime_checkable
class SupportsReducedDecoding(Protocol):
    """What a preprocess is that needs no more than a fraction of a large picture's pixels."""

    def enough_size(self, width: int, height: int) -> tuple[int, int] | None:
        """Return the least width and height that a picture of this size may be decoded at.

        Both are those of the file, before any rotation. None asks for the picture whole.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class EncodedTexts:
    """The vectors of some texts, in input order."""

    vectors: VectorArray  # Shape (n, dim), rows of unit length.
    is_cut: tuple[bool, ...]  # Whether a text was too long, so that its end does not count.


class ImageEncoder(Protocol):
    """The loaded image half of a model. One caller at a time."""

    def encode_images(self, pixels: PixelArray) -> VectorArray:
        """Return float32 vectors, shape (n, dim), rows of unit length in input order.

        ``pixels`` is uint8 of shape (n, *input_shape), n >= 1. Row i depends on picture i alone,
        and is NaN when the model finds no direction for it. Raises ModelError when the model is
        of no use, whatever the picture.
        """
        ...


class TextEncoder(Protocol):
    """The loaded text half of a model. Safe to call from several threads."""

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        """Return the vectors of at least one text. Row i depends on text i alone."""
        ...


class VectorSpace(Protocol):
    """What of a model its vectors need to be stored: every ``EmbeddingModel`` is one."""

    @property
    def name(self) -> str:
        """What the operator calls the model."""
        ...

    @property
    def dim(self) -> int:
        """Length of the vectors."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of weights and preprocessing: equal means that vectors may be mixed."""
        ...


class EmbeddingModel(Protocol):
    """A model that maps pictures and texts into one space of unit vectors."""

    @property
    def name(self) -> str:
        """What the operator calls it, for example ``bundled``."""
        ...

    @property
    def dim(self) -> int:
        """Length of its vectors."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of weights and preprocessing: equal means that vectors may be mixed."""
        ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what ``preprocess`` returns."""
        ...

    @property
    def preprocess(self) -> Preprocess:
        """The step from a decoded picture to input pixels."""
        ...

    def load_image_encoder(self, *, threads: int) -> ImageEncoder:
        """Load the image half, to run on ``threads`` cores."""
        ...

    def load_text_encoder(self, *, threads: int) -> TextEncoder:
        """Load the text half, to run on ``threads`` cores."""
        ...


@runtime_checkable
class SupportsRelocation(Protocol):
    """What a model is whose files may lie elsewhere on another machine."""

    def relocated(self, paths: PathMapping) -> EmbeddingModel:
        """Return the model as this machine has it, its files found anew and nothing remembered.

        So its fingerprint is that of the files here. Raises ModelError when they are missing.
        """
        ...
