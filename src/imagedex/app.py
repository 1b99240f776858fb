"""The composition root: settings in, wired services out.

This is the only module that picks adapters. Edges get an :class:`Application` and nothing else.
"""

from __future__ import annotations

from typing import Protocol

from imagedex.access import KeyService
from imagedex.indexing import Indexing
from imagedex.search import QueryAnswer
from imagedex.settings import Settings


class Application(Protocol):
    """All services of one process, wired."""

    settings: Settings
    indexing: Indexing
    keys: KeyService

    def start(self) -> None:
        """Take the home, bring the catalog up to date, and start running jobs."""
        ...

    def close(self) -> None:
        """Stop running jobs (they resume at their last chunk) and give everything back."""
        ...

    def query(self, text: str, *, top_k: int = 10, index_prefix: str | None = None) -> QueryAnswer:
        """Answer a text query."""
        ...

    def thumbnail(self, image_id: str, *, size: int, index_prefix: str | None = None) -> bytes:
        """Return a JPEG of an indexed image, at most ``size`` pixels a side. Raises NotFound."""
        ...

    def readiness(self) -> dict[str, str]:
        """Return each check by name: ``ok`` or why it is not. Encodes and searches for real."""
        ...
