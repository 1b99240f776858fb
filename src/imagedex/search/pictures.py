"""Pictures that are asked with, and lie in no index."""

from __future__ import annotations

import hashlib
import threading

import numpy as np

from imagedex.core.errors import InvalidRequest
from imagedex.core.images import FailureReason, ImageFailure
from imagedex.embedding import EmbeddingModel, ImageEncoder
from imagedex.ingest import DecodeLimits, ImageRoots, ProcessImageDecoder
from imagedex.search.query import PictureTerm


class PictureReader:
    """Makes terms of pictures, just as indexing makes vectors of them.

    A process with limits of its own decodes them. That process and the image half of the model
    are loaded by the first picture, and stay. Safe to call from several threads.
    """

    def __init__(self, model: EmbeddingModel, *, limits: DecodeLimits, threads: int) -> None:
        """Take the model, what one picture may cost, and the cores that encode it."""
        self._model = model
        self._threads = threads
        self._decoder = ProcessImageDecoder(
            roots=ImageRoots(),  # It is handed bytes, and opens no file.
            preprocess=model.preprocess,
            limits=limits,
            shape=model.input_shape,
        )
        self._encoder: ImageEncoder | None = None
        self._encoding = threading.Lock()  # One caller at a time.

    def read(self, data: bytes) -> PictureTerm:
        """Return the term for the bytes of a picture's file.

        Raises InvalidRequest, with the reason, for what is no picture that could be indexed;
        ModelNotInstalled, ModelError, EngineError.
        """
        with self._encoding:
            # First, so that a model that is not here is told before any work.
            if self._encoder is None:
                self._encoder = self._model.load_image_encoder(threads=self._threads)
        if not data:
            raise _unusable(FailureReason.EMPTY, "It has no bytes; send those of its file.")
        outcome = self._decoder.decode_bytes(data)
        if isinstance(outcome, ImageFailure):
            raise _unusable(outcome.reason, outcome.detail)
        with self._encoding:
            vector = self._encoder.encode_images(outcome.pixels[np.newaxis])[0]
        if not np.isfinite(vector).all():
            failure = ImageFailure.without_direction(outcome.facts)
            raise _unusable(failure.reason, failure.detail)
        return PictureTerm(
            # Not the decoder's: it is a key of answers, and a hostile picture may speak there.
            hashlib.sha256(data).hexdigest(),
            vector.astype(np.float32).tobytes(),
            fingerprint=self._model.fingerprint,
        )

    def close(self) -> None:
        """End the decoder process. Calling it again does nothing."""
        self._decoder.close()


def _unusable(reason: FailureReason, detail: str) -> InvalidRequest:
    return InvalidRequest(f"The picture cannot be used ({reason}): {detail}")
