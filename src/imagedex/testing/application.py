"""An application in memory, for whatever stands on top of one: real keys, made-up images."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from imagedex.access import KeyService, Scope
from imagedex.core.errors import InvalidRequest, NotFound
from imagedex.core.ids import image_id_of
from imagedex.search.interfaces import QueryAnswer, Result
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
        self.checks = {"database": "ok", "search": "ok"}
        self.failure: Exception | None = None

    def key_with(self, *scopes: Scope) -> str:
        """Make a key and return its secret."""
        return self.keys.create("test", scopes)[1]

    def query(self, text: str, *, top_k: int = 10, index_prefix: str | None = None) -> QueryAnswer:
        self._fail_when_told()
        if not text.strip() or "\0" in text:
            raise InvalidRequest("The text is blank.")
        self.indexing.locations.resolve(index_prefix)
        results = tuple(
            Result(rank, 1.0 / rank, path, image_id_of(path))
            for rank, path in enumerate(self.image_paths[:top_k], start=1)
        )
        return QueryAnswer(
            query=text,
            results=results,
            query_time_seconds=0.0005,
            total_images=len(self.image_paths),
            model_name="bundled",
            generation=1,
            is_cached=False,
            is_text_cut=len(text) > 1000,
        )

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
