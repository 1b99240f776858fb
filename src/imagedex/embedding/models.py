"""Which embedding models there are, by name."""

from __future__ import annotations

from imagedex.core.errors import ModelError
from imagedex.embedding.interfaces import EmbeddingModel


def find_model(name: str) -> EmbeddingModel:
    """Return the model of this name, not loaded yet. Raises ModelError for an unknown name."""
    if name == "bundled":
        # Imported here, so that naming a model does not load the runtimes of all others.
        from imagedex.embedding.bundled import BundledModel

        return BundledModel()
    raise ModelError(f"There is no model {name!r}; IMAGEDEX_MODEL can be: bundled.")
