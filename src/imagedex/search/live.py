"""The generation of an index that answers queries now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import structlog

from imagedex.core.cache import LruCache
from imagedex.core.errors import (
    CorruptIndex,
    CursorExpired,
    FingerprintMismatch,
    ImagedexError,
    InvalidRequest,
    StorageError,
)
from imagedex.core.fingerprints import ModelIdentity, way_back
from imagedex.embedding.interfaces import VectorArray
from imagedex.search.batching import Batcher
from imagedex.search.finding import Found, Wanted
from imagedex.search.holding import Holding
from imagedex.search.interfaces import QueryAnswer
from imagedex.search.query import MAX_TOP_K, Query
from imagedex.search.ranking import MAX_DEPTH, Ranking
from imagedex.segments import IndexFiles, Manifest, OpenGeneration

AnswerKey = tuple[Query, int]  # And how many results are before the page.

# An answer's weight is its results. Answers of usual length all fit; those of 1,000 results
# each would fill some hundred MB if only their number counted.
_RESULTS_PER_ENTRY = 64
_OPEN_ATTEMPTS = 5
_DAMAGE_SECONDS = 5.0

# Rankings are remembered from page to page: two of full depth, or many that are shorter.
_MAX_RANKINGS = 64
_MAX_RANKED = 2 * MAX_DEPTH

# A generation shares its segments with the next one, but for those that were merged.
PAGES_SECONDS = 300.0
_MAX_PAGED_GENERATIONS = 16

_log = structlog.get_logger(__name__)


Find = Callable[[OpenGeneration, Sequence[Wanted]], Sequence[Found | InvalidRequest]]


@dataclass(frozen=True, slots=True)
class Serving:
    """An open generation with its answers: a new one begins without any."""

    generation: OpenGeneration
    plain: Batcher[Wanted, Found]
    costly: Batcher[Wanted, Found]
    answers: LruCache[AnswerKey, QueryAnswer]
    rankings: LruCache[Query, Ranking]

    def find(self, wanted: Wanted) -> Found:
        """Answer a query in its turn.

        Plain ones together, and never after one that may cost a hundred times as much: these are
        answered one by one.
        """
        return (self.plain if wanted.is_plain else self.costly).run(wanted)


@dataclass(frozen=True, slots=True)
class _Damage:
    """Why an index could not be opened a moment ago."""

    reason: str
    until: float  # By the monotonic clock.


class LiveIndex:
    """Serves the current generation of one index, and swaps it for a newer one.

    ``serving`` is read without a lock; whoever read it may use it for as long as he likes.
    """

    def __init__(
        self,
        files: IndexFiles,
        *,
        find: Find,
        fingerprint: str,
        model_name: str,
        cache_entries: int,
        on_opened: Callable[[Path], object],
    ) -> None:
        """Take the files, what answers queries from a generation, and whom to tell of a new one."""
        self._files = files
        self._find = find
        self._fingerprint = fingerprint
        self._model_name = model_name
        self._cache_entries = cache_entries
        self._on_opened = on_opened
        self._serving: Serving | None = None
        self._damage: _Damage | None = None
        self._refreshing = threading.Lock()
        self._paged = Holding[Serving](seconds=PAGES_SECONDS, max_values=_MAX_PAGED_GENERATIONS)

    @property
    def serving(self) -> Serving | None:
        """What answers now, None before the first generation was opened."""
        return self._serving

    def opened(self) -> Serving | None:
        """Return what answers now, for which the current generation is opened if need be.

        Raises as ``refresh``; that an index is damaged is remembered for some seconds, since its
        files would be read again for each query.
        """
        serving = self._serving
        if serving is not None:
            return serving
        damage = self._damage
        if damage is not None and time.monotonic() < damage.until:
            raise CorruptIndex(damage.reason)
        return self.refresh()

    def hold(self, serving: Serving) -> None:
        """Keep a generation for some minutes from now on, since a next page may be asked for."""
        self._paged.hold(serving.generation.manifest.generation, serving)

    def held(self, generation: int) -> Serving:
        """Return what serves a generation of which pages were given. Raises CursorExpired."""
        serving = self._serving
        if serving is not None and serving.generation.manifest.generation == generation:
            return serving
        held = self._paged.get(generation)
        if held is None:
            raise CursorExpired(
                "The index has changed since the first page, and the state that the cursor leads "
                f"through is kept for {PAGES_SECONDS / 60:g} minutes after a page, or less when "
                "the index changes often; ask again from the first page."
            )
        return held

    def forget_old(self) -> None:
        """Let go of generations whose next page nobody asked for."""
        self._paged.forget_old()

    def refresh(self) -> Serving | None:
        """Open the current generation, unless it is open already, and serve it from now on.

        It is searched once before it is served, so that the first query finds it warm. When it
        cannot be opened, the error is logged and raised, and what was served still is.
        Raises FingerprintMismatch, CorruptIndex, StorageError.
        """
        with self._refreshing:
            before = self._serving
            try:
                self._serving = self._open_current()
                self._damage = None
            except ImagedexError as error:
                self._note(error)
                _log.error(
                    "generation_not_opened",
                    index_prefix=str(self._files.index_prefix),
                    serving=self._serving.generation.manifest.generation if self._serving else 0,
                    reason=str(error),
                )
                raise
            self._paged.forget_old()
            if self._serving is not before:
                if before is not None:
                    # It may live on for the next pages of some query.
                    before.answers.clear()
                self._on_opened(self._files.index_prefix)
            return self._serving

    def verify(self, *, should_stop: Callable[[], bool]) -> None:
        """Compare the large files of what is served with their checksums; log what is damaged.

        Before, make what finds its images by their ids: both are work for the background.

        What can be made good is then served from a copy in memory. Where it cannot, nothing is
        served any more, and whoever asks is told why. Raises StorageError.
        """
        serving = self._serving
        if serving is None:
            return
        serving.generation.prepare_ids()
        damaged = self._files.verify(serving.generation.manifest, should_stop=should_stop)
        for reason in damaged:
            _log.error(
                "index_file_damaged", index_prefix=str(self._files.index_prefix), reason=reason
            )
        if damaged:
            self._open_anew()

    def _open_anew(self) -> None:
        with self._refreshing:
            serving = self._serving
            if serving is None:
                return
            try:
                self._serving = self._warmed(serving.generation.manifest, serving)
            except ImagedexError as error:
                # Also when its storage is away: what is known to be damaged must not be found.
                self._serving = None
                self._note(error)
                _log.error(
                    "generation_not_served",
                    index_prefix=str(self._files.index_prefix),
                    generation=serving.generation.manifest.generation,
                    reason=str(error),
                )

    def _note(self, error: ImagedexError) -> None:
        if isinstance(error, CorruptIndex):
            self._damage = _Damage(str(error), time.monotonic() + _DAMAGE_SECONDS)

    def _open_current(self) -> Serving | None:
        manifest = self._files.current()
        for _ in range(_OPEN_ATTEMPTS - 1):
            try:
                return self._open(manifest)
            except StorageError:
                # While it was being opened, its files may have been swept, newer generations
                # having been published.
                newer = self._files.current()
                if newer == manifest:
                    raise
                manifest = newer
        return self._open(manifest)

    def _open(self, manifest: Manifest | None) -> Serving | None:
        before = self._serving
        if manifest is None:
            if before is not None:
                raise StorageError(
                    f"There is no index at {str(self._files.index_prefix)!r} any more, where "
                    f"generation {before.generation.manifest.generation} was; check that the "
                    "storage is mounted and try again."
                )
            return None
        if before is not None and before.generation.manifest == manifest:
            return before
        if manifest.fingerprint != self._fingerprint:
            stored = ModelIdentity(manifest.model_name, manifest.fingerprint)
            used = ModelIdentity(self._model_name, self._fingerprint)
            raise FingerprintMismatch(
                f"The index at {str(self._files.index_prefix)!r} holds vectors of {stored} but "
                f"queries are encoded by {used}; {way_back(stored, used)}."
            )
        return self._warmed(manifest, before)

    def _warmed(self, manifest: Manifest, before: Serving | None) -> Serving:
        generation = self._files.open(manifest, before.generation if before else None)
        generation.search(_any_unit_vector(manifest.dim), [1])
        answers = LruCache[AnswerKey, QueryAnswer](
            max_entries=self._cache_entries,
            max_weight=max(self._cache_entries * _RESULTS_PER_ENTRY, 1 + MAX_TOP_K),
        )
        rankings = LruCache[Query, Ranking](max_entries=_MAX_RANKINGS, max_weight=_MAX_RANKED)
        find = partial(self._find, generation)
        return Serving(generation, Batcher(find), Batcher(find, max_items=1), answers, rankings)


def _any_unit_vector(dim: int) -> VectorArray:
    return np.full((1, dim), dim**-0.5, dtype=np.float32)
