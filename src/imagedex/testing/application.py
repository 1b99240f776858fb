"""An application in memory, for whatever stands on top of one: real keys, made-up images."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Literal

from PIL import Image

from imagedex.access import KeyService, Scope
from imagedex.core.errors import InvalidRequest, NotFound
from imagedex.core.ids import image_id_of
from imagedex.search import PictureTerm, Query, QueryAnswer, Result
from imagedex.search.query import require_valid_query
from imagedex.settings import Settings
from imagedex.testing.indexing import InMemoryIndexing
from imagedex.testing.key_store import InMemoryKeyStore
from imagedex.testing.snapshots import InMemorySnapshots


class InMemoryApplication:
    """Every query finds the images of ``image_paths``, in that order.

    Set ``failure`` to an exception, and queries, thumbnails and checks raise it.
    """

    def __init__(self, home: Path, *, image_roots: tuple[Path, ...] = (), **settings: object):
        self.settings = Settings.model_validate(
            {"home": home, "image_roots": image_roots, **settings}
        )
        self.indexing = InMemoryIndexing(self.settings)
        self.snapshots = InMemorySnapshots(self.indexing)
        self.keys = KeyService(InMemoryKeyStore())
        self.image_paths: list[str] = []
        self.queries: list[Query] = []  # That were asked.
        self.checks = {"database": "ok", "search": "ok"}
        self.failure: Exception | None = None
        self.role: Literal["leader", "standby"] = "leader"

    def key_with(self, *scopes: Scope) -> str:
        """Make a key and return its secret."""
        return self.keys.create("test", scopes)[1]

    def search(
        self, query: Query, *, cursor: str | None = None, index_prefix: str | None = None
    ) -> QueryAnswer:
        """Remember the query, and give the images in pages; a cursor is the number before."""
        self._fail_when_told()
        require_valid_query(query)
        self.indexing.locations.resolve(index_prefix)
        self.queries.append(query)
        if cursor is not None and not cursor.isdecimal():
            raise InvalidRequest("The cursor is not one of this query.")
        offset = int(cursor or 0)
        end = offset + query.top_k
        results = tuple(
            Result(rank, 1.0 / rank, path, image_id_of(path))
            for rank, path in enumerate(self.image_paths[offset:end], start=offset + 1)
        )
        return QueryAnswer(
            query=query.text,
            results=results,
            query_time_seconds=0.0005,
            total_images=len(self.image_paths),
            model_name="bundled",
            generation=1,
            is_cached=False,
            is_text_cut=len(query.text) > 1000,
            next_cursor=str(end) if end < len(self.image_paths) else None,
        )

    def read_picture(self, data: bytes, *, index_prefix: str | None = None) -> PictureTerm:
        """Take anything but nothing for a picture."""
        self._fail_when_told()
        if not data:
            raise InvalidRequest("The picture cannot be used (empty).")
        return PictureTerm(hashlib.sha256(data).hexdigest(), b"")

    def thumbnail(self, image_id: str, *, size: int, index_prefix: str | None = None) -> bytes:
        self._fail_when_told()
        self.indexing.locations.resolve(index_prefix)
        if image_id not in {image_id_of(path) for path in self.image_paths}:
            raise NotFound(f"There is no image {image_id!r}.")
        buffer = io.BytesIO()
        Image.new("RGB", (size, size // 2), "teal").save(buffer, "JPEG")
        return buffer.getvalue()

    def readiness(self) -> dict[str, str]:
        self._fail_when_told()
        return dict(self.checks)

    def _fail_when_told(self) -> None:
        if self.failure is not None:
            raise self.failure
