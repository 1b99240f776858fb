"""The embedder that ships inside the package: no download, no GPU, works offline."""

from imagedex.embedding.bundled.model import BundledModel

__all__ = ["BundledModel"]
