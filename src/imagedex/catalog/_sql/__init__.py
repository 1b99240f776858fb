"""The catalog in the database."""

from imagedex.catalog._sql.catalog import SqlCatalog

__all__ = ["SqlCatalog"]
