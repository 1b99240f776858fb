"""What the database knows of each image of each index."""

from imagedex.catalog._sql import SqlCatalog
from imagedex.catalog.interfaces import (
    Catalog,
    CatalogCounts,
    CatalogEntry,
    ImageState,
    IndexEntry,
    Outline,
    StoredContent,
)

__all__ = [
    "Catalog",
    "CatalogCounts",
    "CatalogEntry",
    "ImageState",
    "IndexEntry",
    "Outline",
    "SqlCatalog",
    "StoredContent",
]
