"""The query service of each index: that of the model which its vectors are of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar

import structlog

from imagedex.core.errors import FingerprintMismatch
from imagedex.core.fingerprints import ModelIdentity
from imagedex.embedding import EmbeddingModel
from imagedex.search.interfaces import QueryAnswer
from imagedex.search.query import Query
from imagedex.search.service import QueryService
from imagedex.segments import IndexFiles

AnswerT = TypeVar("AnswerT")
_Open: TypeAlias = Callable[[QueryService, Path], int]

_ATTEMPTS = 5  # At a model that changes while an index is opened.

_log = structlog.get_logger(__name__)


class QueryServices:
    """Answers queries over indexes of any models. Safe to call from several threads.

    A query is encoded and searched by one service, so never with a vector of another model than
    the generation has. When an index gets another model, its new generation is opened by that
    one's service while the old one answers.
    """

    def __init__(
        self,
        *,
        files_of: Callable[[Path], IndexFiles],
        model_of: Callable[[ModelIdentity | None], EmbeddingModel],
        make: Callable[[EmbeddingModel], QueryService],
    ) -> None:
        """Take what opens an index prefix, what finds its model, and what serves a model.

        ``model_of`` raises FingerprintMismatch or ModelError; None asks for that of new indexes.
        """
        self._files_of = files_of
        self._model_of = model_of
        self._make = make
        self._services: dict[str, QueryService] = {}  # By fingerprint.
        self._serving: dict[Path, str] = {}  # The fingerprint of what is served.
        self._warmed: set[str] = set()  # Fingerprints that an index is about to get.
        self._turns: dict[Path, threading.Lock] = {}
        self._lock = threading.Lock()

    def query(self, index_prefix: Path, text: str, top_k: int) -> QueryAnswer:
        """Answer a text query; see ``QueryService.query``."""
        return self._ask(index_prefix, lambda service: service.query(index_prefix, text, top_k))

    def answer(self, index_prefix: Path, query: Query, cursor: str | None = None) -> QueryAnswer:
        """Answer a query, or give its next page; see ``QueryService.answer``.

        Pages end with the model: a cursor of a generation of another one has expired.
        """
        return self._ask(index_prefix, lambda service: service.answer(index_prefix, query, cursor))

    def path_of(self, index_prefix: Path, image_id: str) -> str | None:
        """Return the path of an indexed image; see ``QueryService.path_of``."""
        return self._ask(index_prefix, lambda service: service.path_of(index_prefix, image_id))

    def check(self, index_prefix: Path) -> int:
        """Encode a text and search with it; see ``QueryService.check``."""
        return self._ask(index_prefix, lambda service: service.check(index_prefix))

    def refresh(self, index_prefix: Path) -> int:
        """Serve the current generation from now on; see ``QueryService.refresh``.

        Raises also FingerprintMismatch and ModelError when no model here makes its vectors.
        """
        return self._open(index_prefix, QueryService.refresh)

    def _open(self, index_prefix: Path, open_in: _Open) -> int:
        is_served = index_prefix in self._serving
        if not is_served and self._files_of(index_prefix).current() is None:
            return 0
        with self._turn_of(index_prefix):
            return self._open_in_its_service(index_prefix, open_in)

    def served(self) -> list[Path]:
        """Return the indexes that have been opened."""
        with self._lock:
            return list(self._serving)

    def verify(self, index_prefix: Path, should_stop: Callable[[], bool]) -> None:
        """Compare the large files of what is served; see ``QueryService.verify``."""
        with self._lock:
            fingerprint = self._serving.get(index_prefix)
            service = None if fingerprint is None else self._services[fingerprint]
        if service is not None:
            service.verify(index_prefix, should_stop)

    def warm(self, model: EmbeddingModel) -> None:
        """Load what encodes texts for a model that an index is about to get, and encode one.

        It stays until ``cool`` is called. Raises ModelError.
        """
        with self._lock:
            self._warmed.add(model.fingerprint)
        self._service(model).warm()

    def cool(self, model: EmbeddingModel) -> None:
        """Let go of a model that was warmed, unless an index is served by it."""
        with self._lock:
            self._warmed.discard(model.fingerprint)
            self._drop_if_unused(model.fingerprint)

    def _ask(self, index_prefix: Path, ask: Callable[[QueryService], AnswerT]) -> AnswerT:
        service = self._service_of(index_prefix)
        try:
            return ask(service)
        except FingerprintMismatch:
            # The index may have got another model since its service was looked up.
            now = self._service_of(index_prefix)
            if now is service:
                raise
            return ask(now)

    def _service_of(self, index_prefix: Path) -> QueryService:
        """Return the service of an index, which it opens at first; of none, that of new ones."""
        for _ in range(2):
            with self._lock:
                fingerprint = self._serving.get(index_prefix)
                if fingerprint is not None:
                    return self._services[fingerprint]
            if self._open(index_prefix, QueryService.open) == 0:
                break
        return self._service(self._model_of(None))

    def _service(self, model: EmbeddingModel) -> QueryService:
        with self._lock:
            service = self._services.get(model.fingerprint)
            if service is None:
                service = self._services[model.fingerprint] = self._make(model)
            return service

    def _turn_of(self, index_prefix: Path) -> threading.Lock:
        with self._lock:
            return self._turns.setdefault(index_prefix, threading.Lock())

    def _open_in_its_service(self, index_prefix: Path, open_in: _Open) -> int:
        for attempt in range(_ATTEMPTS):
            manifest = self._files_of(index_prefix).current()
            served = self._serving.get(index_prefix)
            if manifest is None:
                # Whoever served it says what is wrong.
                return 0 if served is None else open_in(self._services[served], index_prefix)
            model = self._model_of(ModelIdentity(manifest.model_name, manifest.fingerprint))
            service = self._service(model)
            try:
                generation = open_in(service, index_prefix)
            except FingerprintMismatch:
                # Its model has changed once more in this moment.
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            self._serve(index_prefix, model.fingerprint, service)
            return generation
        raise AssertionError("The last attempt returns or raises.")  # pragma: no cover

    def _serve(self, index_prefix: Path, fingerprint: str, service: QueryService) -> None:
        """Let queries of an index go to a service that has opened it."""
        with self._lock:
            self._services[fingerprint] = service
            before = self._serving.get(index_prefix)
            self._serving[index_prefix] = fingerprint
            if before is None or before == fingerprint:
                return
            left = self._services[before]
            self._drop_if_unused(before)
            is_dropped = before not in self._services
        if not is_dropped:
            # What is dropped goes as a whole, when the last query that it answers has ended.
            left.forget(index_prefix)
        _log.info(
            "query_model_changed",
            index_prefix=str(index_prefix),
            before=before,
            now=fingerprint,
        )

    def _drop_if_unused(self, fingerprint: str) -> None:
        if fingerprint not in self._serving.values() and fingerprint not in self._warmed:
            self._services.pop(fingerprint, None)
