"""The bundled model: ConSE over EfficientNet-Lite0 and MiniLM-L6.

An image's vector is the convex combination of semantic embeddings of Norouzi et al. 2014
(https://arxiv.org/abs/1312.5650): EfficientNet-Lite0 gives the probabilities of the 1,000
ImageNet classes, and the text embeddings of the T best of them are added up, weighted by
probability. A text's vector is its all-MiniLM-L6-v2 embedding. What both halves do beyond
that, and what each step brought, stands in docs/decisions/0005-bundled-embedder.md.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from imagedex.core.paths import PathMapping
from imagedex.embedding.bundled.manifest import ASSETS, AssetManifest
from imagedex.embedding.bundled.preprocess import Letterbox
from imagedex.embedding.bundled.query_forms import QUERY_FORMS_VERSION
from imagedex.embedding.interfaces import ImageEncoder, TextEncoder

IMAGE_GRAPH = "image.onnx"
TEXT_GRAPH = "text.onnx"
TOKENIZER = "tokenizer.json"


class BundledModel:
    """The embedding model that ships inside the package, named ``bundled``.

    Cheap to make and picklable: weights are read, and proven by their SHA-256, when one of
    the two halves is loaded. A missing or damaged file raises ``ModelError`` then.
    """

    def __init__(self, assets: Path = ASSETS) -> None:
        """Describe the model whose files lie in the folder ``assets``."""
        self._assets = assets
        self._preprocess = Letterbox(side=224)

    def relocated(self, paths: PathMapping) -> BundledModel:  # noqa: ARG002 - the protocol's.
        """Return the model of the package that is installed here, wherever that is."""
        return BundledModel()

    @cached_property
    def _manifest(self) -> AssetManifest:
        return AssetManifest.load(self._assets)

    @property
    def name(self) -> str:
        """``bundled``."""
        return "bundled"

    @property
    def dim(self) -> int:
        """Length of its vectors."""
        return self._manifest.dim

    @property
    def fingerprint(self) -> str:
        """Identity of the weights and of the steps before them, without reading the weights."""
        digest = self._manifest.weights_digest(self._preprocess.version, QUERY_FORMS_VERSION)
        return f"bundled-{digest[:16]}"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Height, width and channels of the input pixels."""
        return (self._preprocess.side, self._preprocess.side, 3)

    @property
    def preprocess(self) -> Letterbox:
        """Letterboxing to the input shape."""
        return self._preprocess

    def load_image_encoder(self, *, threads: int) -> ImageEncoder:
        """Load the image half, to run on ``threads`` cores."""
        # Imported here, and below, because decoder processes import this module for the
        # preprocessing alone and would each carry the model runtime.
        from imagedex.embedding.bundled.image_encoder import BundledImageEncoder
        from imagedex.embedding.runtimes._onnxruntime import OnnxRuntimeGraph

        session = OnnxRuntimeGraph(
            self._manifest.read(IMAGE_GRAPH), name=IMAGE_GRAPH, threads=threads
        )
        return BundledImageEncoder(session, input_shape=self.input_shape, dim=self.dim)

    def load_text_encoder(self, *, threads: int) -> TextEncoder:
        """Load the text half, to run on ``threads`` cores."""
        from imagedex.embedding.bundled.text_encoder import BundledTextEncoder
        from imagedex.embedding.runtimes._onnxruntime import OnnxRuntimeGraph

        tokenizer = self._manifest.read(TOKENIZER)
        session = OnnxRuntimeGraph(
            self._manifest.read(TEXT_GRAPH), name=TEXT_GRAPH, threads=threads
        )
        return BundledTextEncoder(session, tokenizer=tokenizer, dim=self.dim)
