"""Answers to queries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from imagedex.core.errors import FingerprintMismatch, ModelError
from imagedex.embedding.interfaces import TextEncoder
from imagedex.search.cursors import Cursor
from imagedex.search.finding import Finder
from imagedex.search.interfaces import QueryAnswer
from imagedex.search.live import LiveIndex, Serving
from imagedex.search.paging import Page, find_page
from imagedex.search.query import PictureTerm, Query, require_valid_query
from imagedex.segments import IndexFiles

_CHECK_TEXT = "a photo"


class QueryService:
    """Answers queries over the indexes of one embedding model. Safe to call from several threads.

    A query takes one generation and keeps it to its end; it waits for no refresh, except for
    the first one of its index. Queries that come together are encoded together and searched
    together.
    """

    def __init__(
        self,
        *,
        files_of: Callable[[Path], IndexFiles],
        encoder: TextEncoder,
        model_name: str,
        fingerprint: str,
        dim: int,
        cache_entries: int,
        on_opened: Callable[[Path], object] = lambda _: None,
    ) -> None:
        """Take what opens an index prefix and what encodes texts.

        ``cache_entries`` bounds the answers kept for each index, and the text vectors kept.
        ``on_opened`` is told of each generation that begins to be served.
        """
        self._files_of = files_of
        self._finder = Finder(encoder, model_name=model_name, dim=dim, cache_entries=cache_entries)
        self._model_name = model_name
        self._fingerprint = fingerprint
        self._cache_entries = cache_entries
        self._on_opened = on_opened
        self._live: dict[Path, LiveIndex] = {}
        self._live_lock = threading.Lock()

    def query(self, index_prefix: Path, text: str, top_k: int) -> QueryAnswer:
        """Answer the plainest query: one text. See ``answer``."""
        return self.answer(index_prefix, Query.of_text(text, top_k))

    def answer(self, index_prefix: Path, query: Query, cursor: str | None = None) -> QueryAnswer:
        """Answer a query from the generation that is served when it begins.

        With a cursor the answer is the next page, from the generation of the first one. Raises
        InvalidRequest, CursorExpired; NotFound for an image that the index has not;
        FingerprintMismatch, CorruptIndex, StorageError when the index is used for the first time
        and cannot be opened; ModelError.
        """
        started = time.perf_counter()
        require_valid_query(query)
        self._require_own_pictures(query)
        place = None if cursor is None else Cursor.parse(cursor)
        live = self._live_index(index_prefix)
        serving = self._serving(index_prefix, live)
        offset = 0
        if place is not None:
            serving = live.held(place.generation)
            place.require_of(query, index_prefix, serving.generation.manifest)
            offset = place.offset
        if serving is None:
            return self._nothing(query, started)
        key = (query, offset)
        answer = serving.answers.get(key)
        if answer is not None:
            elapsed = time.perf_counter() - started
            answer = replace(answer, query_time_seconds=elapsed, is_cached=True)
        else:
            page = find_page(self._finder, serving, query, offset)
            answer = self._answer(query, index_prefix, serving, page, started)
            serving.answers.put(key, answer, weight=query.weight + len(answer.results))
        if answer.next_cursor is not None:
            live.hold(serving)
        return answer

    def _require_own_pictures(self, query: Query) -> None:
        """Raise FingerprintMismatch for a picture whose vector another model has made."""
        for term in query.terms:
            made_by = term.fingerprint if isinstance(term, PictureTerm) else None
            if made_by not in (None, self._fingerprint):
                raise FingerprintMismatch(
                    f"The picture was read for the model {made_by!r}, but the index has "
                    f"{self._fingerprint!r} by now; send it again."
                )

    def path_of(self, index_prefix: Path, image_id: str) -> str | None:
        """Return the path of an indexed image, None when the index has it not.

        Raises as ``answer`` for an index that cannot be opened.
        """
        serving = self._serving(index_prefix, self._live_index(index_prefix))
        return None if serving is None else serving.generation.path_of(image_id)

    def refresh(self, index_prefix: Path) -> int:
        """Serve the current generation from now on, and return its number (0 for no index).

        Queries that are under way end on the generation they began with. When it cannot be
        opened, this raises (FingerprintMismatch, CorruptIndex, StorageError) and the
        generation served before goes on answering.
        """
        serving = self._live_index(index_prefix).refresh()
        return 0 if serving is None else serving.generation.manifest.generation

    def open(self, index_prefix: Path) -> int:
        """Do what ``refresh`` does for a query: an index that is open already stays as it is.

        That it is damaged is remembered for some seconds.
        """
        serving = self._live_index(index_prefix).opened()
        return 0 if serving is None else serving.generation.manifest.generation

    def verify(self, index_prefix: Path, should_stop: Callable[[], bool]) -> None:
        """Compare the large files of what is served with their checksums; see ``LiveIndex``.

        Raises StorageError.
        """
        self._live_index(index_prefix).verify(should_stop=should_stop)

    def forget(self, index_prefix: Path) -> None:
        """Let go of what is open of an index, which another service has taken over."""
        with self._live_lock:
            self._live.pop(index_prefix, None)

    def warm(self) -> None:
        """Encode a text, so that no query waits for the model to be loaded. Raises ModelError."""
        self._finder.encode([_CHECK_TEXT])

    def check(self, index_prefix: Path) -> int:
        """Encode a text and search with it, past all caches; return the generation searched.

        Raises what kept it from being done. An index without images passes;
        it is generation 0 while nothing was ever published.
        """
        (encoded,) = self._finder.encode([_CHECK_TEXT])
        serving = self._serving(index_prefix, self._live_index(index_prefix))
        if serving is None:
            return 0
        manifest = serving.generation.manifest
        (hits,) = serving.generation.search(encoded.vector[np.newaxis], [1])
        found = len(hits.image_paths)
        if found != min(1, manifest.images):
            raise ModelError(
                f"A search of generation {manifest.generation} with {manifest.images} images "
                f"found {found}; start the server again; if that is no help, restore the index "
                "from a copy, or index again under another prefix."
            )
        return manifest.generation

    def _live_index(self, index_prefix: Path) -> LiveIndex:
        with self._live_lock:
            live = self._live.get(index_prefix)
            if live is None:
                live = self._live[index_prefix] = LiveIndex(
                    self._files_of(index_prefix),
                    find=self._finder.find,
                    fingerprint=self._fingerprint,
                    model_name=self._model_name,
                    cache_entries=self._cache_entries,
                    on_opened=self._on_opened,
                )
            return live

    def _serving(self, index_prefix: Path, live: LiveIndex) -> Serving | None:
        live.forget_old()
        serving = live.opened()
        if serving is None:
            # Whoever asks for many places without an index must not fill the memory.
            with self._live_lock:
                if self._live.get(index_prefix) is live:
                    del self._live[index_prefix]
        return serving

    def _answer(
        self, query: Query, index_prefix: Path, serving: Serving, page: Page, started: float
    ) -> QueryAnswer:
        manifest = serving.generation.manifest
        next_cursor = None
        if page.next_offset is not None:
            next_cursor = str(Cursor.after(page.next_offset, query, index_prefix, manifest))
        return QueryAnswer(
            query=query.text,
            results=page.results,
            query_time_seconds=time.perf_counter() - started,
            total_images=manifest.images,
            model_name=self._model_name,
            generation=manifest.generation,
            is_cached=False,
            is_text_cut=page.is_text_cut,
            next_cursor=next_cursor,
        )

    def _nothing(self, query: Query, started: float) -> QueryAnswer:
        """Answer where nothing was indexed."""
        return QueryAnswer(
            query=query.text,
            results=(),
            query_time_seconds=time.perf_counter() - started,
            total_images=0,
            model_name=self._model_name,
            generation=0,
            is_cached=False,
            is_text_cut=False,
        )
