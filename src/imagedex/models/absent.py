"""Known models whose files are not here: what can be told of them, and how to get them.

Their vectors can be stored and searched, since the fingerprint of the image half follows from
what is pinned in the register. Only embedding needs the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from imagedex.core.errors import ModelNotInstalled
from imagedex.embedding import ImageEncoder, TextEncoder
from imagedex.embedding.clip.fingerprint import clip_fingerprint
from imagedex.embedding.clip.preprocess import ClipPreprocess
from imagedex.embedding.runtimes import Precision
from imagedex.models.known import KNOWN_MODELS


@dataclass(frozen=True, slots=True)
class AbsentModel:
    """An ``EmbeddingModel`` that cannot be loaded; all else of it is as when it is installed."""

    name: str
    dim: int
    fingerprint: str
    preprocess: ClipPreprocess

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Height, width and channels of the input pixels."""
        return (self.preprocess.spec.height, self.preprocess.spec.width, 3)

    def load_image_encoder(self, *, threads: int) -> ImageEncoder:  # noqa: ARG002 - the protocol's.
        """Raise ModelNotInstalled with the command that installs the model."""
        self.refuse()

    def load_text_encoder(self, *, threads: int) -> TextEncoder:  # noqa: ARG002 - the protocol's.
        """Raise ModelNotInstalled with the command that installs the model."""
        self.refuse()

    def refuse(self) -> NoReturn:
        """Raise ModelNotInstalled with the command that installs the model."""
        raise ModelNotInstalled(
            f"The model {self.name!r} is not installed, so no text or image can be embedded. Get "
            f"it by: imagedex models pull {self.name} (without a network, with the option "
            "--from-dir), then restart the server."
        )


def absent_model(name: str, *, precision: Precision, reduced_decoding: bool) -> AbsentModel | None:
    """Return the known model of this name as far as it is known without its files.

    None for a name that is not known, for a model of which too little is pinned, and in int8,
    whose graphs everybody makes for himself.
    """
    known = KNOWN_MODELS.get(name)
    if known is None or known.image_half is None or known.dim is None:
        return None
    if precision is Precision.INT8:
        return None
    half = known.image_half
    preprocess = ClipPreprocess(half.spec, reduced_decoding)
    fingerprint = clip_fingerprint(
        precision, preprocess, image_digests=[f"{half.graph} {half.sha256}"]
    )
    return AbsentModel(name, known.dim, fingerprint, preprocess)
