"""What an index records of an image beside its vector, read from its file without a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from imagedex.embedding.interfaces import PixelArray

FACTS_SHAPE = (1,)
"""Of what :class:`FactsAlone` leaves of a picture."""


@dataclass(frozen=True, slots=True)
class FactsAlone:
    """A ``Preprocess`` for a decoder whose pixels nobody wants.

    Files are opened below the image roots, read, hashed and decoded as for embedding, in the same
    processes and under the same limits, so that what is adopted is what could be indexed. Only
    JPEGs cost less: they are decoded as small as they can be.
    """

    def __call__(self, image: Image.Image) -> PixelArray:  # noqa: ARG002 - the protocol's.
        """Return nothing of the picture."""
        return np.zeros(FACTS_SHAPE, dtype=np.uint8)

    def enough_size(self, width: int, height: int) -> tuple[int, int] | None:  # noqa: ARG002
        """Ask for as few pixels as the decoder can make."""
        return 1, 1
