"""Queries, wired: what encodes them, what answers them, what verifies the answers' files."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import structlog

from imagedex.app.foundations import Foundations
from imagedex.app.models import search_threads
from imagedex.core.errors import ImagedexError
from imagedex.embedding import EmbeddingModel, EncodedTexts, TextEncoder
from imagedex.ingest import DecodeLimits
from imagedex.search import (
    BackgroundVerifier,
    GenerationWatcher,
    PictureReader,
    PictureTerm,
    QueryService,
    QueryServices,
)

_log = structlog.get_logger(__name__)


class Searching:
    """The query services of one process. Safe to call from several threads."""

    def __init__(self, base: Foundations) -> None:
        self._base = base
        threads = search_threads(base.settings)
        self._encoders = _TextEncoders(threads=threads)
        self._pictures = _PictureReaders(limits=base.limits, threads=threads)
        self._verifier = BackgroundVerifier(
            lambda prefix, should_stop: self.queries.verify(prefix, should_stop)
        )
        self._watcher = GenerationWatcher(
            lambda prefix: self.queries.refresh(prefix),
            lambda: {*self.queries.served(), base.settings.effective_index_prefix},
        )
        self.queries = QueryServices(
            files_of=base.files_of, model_of=base.models.of, make=self._query_service
        )

    def _query_service(self, model: EmbeddingModel) -> QueryService:
        return QueryService(
            files_of=self._base.files_of,
            encoder=self._encoders.of(model),
            model_name=model.name,
            fingerprint=model.fingerprint,
            dim=model.dim,
            cache_entries=self._base.settings.search.cache_entries,
            on_opened=self._verifier.ask,
        )

    def encoder_of(self, index_prefix: Path) -> TextEncoder:
        """Return what encodes texts for an index."""
        return self._encoders.of(self._base.model_of(index_prefix))

    def read_picture(self, data: bytes, index_prefix: Path) -> PictureTerm:
        """Return what stands for a picture in a query to an index, given its file's bytes."""
        return self._pictures.of(self._base.model_of(index_prefix)).read(data)

    def refresh_if_served(self, index_prefix: Path) -> None:
        """Serve the current generation where this process can; whoever asks is told why not."""
        try:
            self.queries.refresh(index_prefix)
        except ImagedexError as error:
            _log.error("index_not_opened", index_prefix=str(index_prefix), error=str(error))

    def start(self) -> None:
        """Begin to verify what is served, and to see what other processes publish."""
        self._verifier.start()
        if self._base.database.is_shared:
            self._watcher.start()

    def close(self) -> None:
        """End the decoders of pictures, the watching and the verification."""
        self._pictures.close()
        self._watcher.close()
        self._verifier.close()


class _LazyTextEncoder:
    """A text encoder that loads its model at the first text, once, whichever thread brings it."""

    def __init__(self, model: EmbeddingModel, *, threads: int) -> None:
        self._model = model
        self._threads = threads
        self._lock = threading.Lock()
        self._encoder: TextEncoder | None = None

    def encode_texts(self, texts: Sequence[str]) -> EncodedTexts:
        encoder = self._encoder
        if encoder is None:
            with self._lock:
                if self._encoder is None:
                    self._encoder = self._model.load_text_encoder(threads=self._threads)
                encoder = self._encoder
        return encoder.encode_texts(texts)


class _TextEncoders:
    """The text encoders in use, one for each model; one that nobody uses is let go."""

    def __init__(self, *, threads: int) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._encoders: WeakValueDictionary[str, _LazyTextEncoder] = WeakValueDictionary()

    def of(self, model: EmbeddingModel) -> TextEncoder:
        with self._lock:
            encoder = self._encoders.get(model.fingerprint)
            if encoder is None:
                encoder = _LazyTextEncoder(model, threads=self._threads)
                self._encoders[model.fingerprint] = encoder
            return encoder


class _PictureReaders:
    """What reads pictures for queries: one for each model that an index was asked in."""

    def __init__(self, *, limits: DecodeLimits, threads: int) -> None:
        self._limits = limits
        self._threads = threads
        self._lock = threading.Lock()
        self._readers: dict[str, PictureReader] = {}

    def of(self, model: EmbeddingModel) -> PictureReader:
        with self._lock:
            reader = self._readers.get(model.fingerprint)
            if reader is None:
                reader = PictureReader(model, limits=self._limits, threads=self._threads)
                self._readers[model.fingerprint] = reader
            return reader

    def close(self) -> None:
        with self._lock:
            for reader in self._readers.values():
                reader.close()
