"""What the API needs of the rest of Imagedex: the part of the application that it calls."""

from __future__ import annotations

from typing import Literal, Protocol

from imagedex.access import KeyService
from imagedex.indexing.interfaces import Indexing
from imagedex.search import PictureTerm, Query, QueryAnswer
from imagedex.settings import Settings
from imagedex.upkeep.interfaces import SnapshotRequests


class Services(Protocol):
    """The services behind the routes. All of them are safe to call from several threads.

    They block; the API calls them in threads of its own and never on its event loop. Whoever
    makes the API starts them before it is served and closes them after.
    """

    @property
    def settings(self) -> Settings:
        """The settings that the process was started with."""
        ...

    @property
    def indexing(self) -> Indexing:
        """Jobs and statistics."""
        ...

    @property
    def snapshots(self) -> SnapshotRequests:
        """States of indexes that are kept."""
        ...

    @property
    def keys(self) -> KeyService:
        """Who may call."""
        ...

    @property
    def role(self) -> Literal["leader", "standby"]:
        """Whether this process runs the jobs of its database."""
        ...

    def search(
        self, query: Query, *, cursor: str | None = None, index_prefix: str | None = None
    ) -> QueryAnswer:
        """Answer a query, or give its next page."""
        ...

    def read_picture(self, data: bytes, *, index_prefix: str | None = None) -> PictureTerm:
        """Return what stands for a picture in a query to an index, given its file's bytes."""
        ...

    def thumbnail(self, image_id: str, *, size: int, index_prefix: str | None = None) -> bytes:
        """Return a JPEG of an indexed image, at most ``size`` pixels a side. Raises NotFound."""
        ...

    def readiness(self) -> dict[str, str]:
        """Return each check by name: ``ok`` or why it is not. Anybody may read the reasons."""
        ...
