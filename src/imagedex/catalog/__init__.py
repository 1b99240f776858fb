"""What the database knows of each image of each index."""

from typing import TYPE_CHECKING

from imagedex.catalog.interfaces import (
    Catalog,
    CatalogCounts,
    CatalogEntry,
    ImageState,
    IndexEntry,
    Outline,
    StoredContent,
)

if TYPE_CHECKING:
    from imagedex.catalog._sql import SqlCatalog

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


def __getattr__(name: str) -> object:
    """Import the adapter when it is asked for: workers know no database."""
    if name != "SqlCatalog":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from imagedex.catalog._sql import SqlCatalog

    return SqlCatalog
