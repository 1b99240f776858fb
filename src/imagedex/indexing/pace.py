"""How fast each worker is, as its chunks show."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from imagedex.core.errors import ImagedexError

MIN_CHUNK_IMAGES = 8  # Below it, handing over a chunk would cost more than it brings.
UNKNOWN_CHUNK_IMAGES = 16  # For a worker of which nothing is known: soon done, and then it is.

_HALF_LIFE_SECONDS = 10.0  # Of a measurement: a machine may be shared, and pictures differ.
_STORE_SECONDS = 10.0
_LEAST_SECONDS = 1e-3  # A clock may stand still.

_log = structlog.get_logger(__name__)


class RateStore(Protocol):
    """Where rates outlive a process; see ``JobStore``."""

    def worker_rates(self) -> Mapping[tuple[str, str], float]:
        """Return images per second by slot and fingerprint, those measured last at the end."""
        ...

    def record_worker_rates(self, measured: Mapping[tuple[str, str], float]) -> None:
        """Store rates beside those that are stored, or in their place."""
        ...


@dataclass(slots=True)
class _Measured:
    images: float
    seconds: float

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds


class Pace:
    """The rates of workers by their slot and by the model's fingerprint. Safe for many threads.

    A slot is a worker's place, which keeps its rate when one worker follows another; what was
    measured in earlier lives of the controller counts until there is something newer.
    """

    def __init__(
        self,
        store: RateStore,
        *,
        target_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Size chunks for ``target_seconds`` of a worker's time."""
        self._store = store
        self._target_seconds = target_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], float] | None = None
        self._measured: dict[tuple[str, str], _Measured] = {}
        self._ended: dict[str, float] = {}  # By slot, of whatever model,
        self._latest: dict[str, tuple[str, str]] = {}  # with which one that was.
        self._changed: set[tuple[str, str]] = set()
        self._stored_at = monotonic()

    def record(
        self,
        slot: str,
        fingerprint: str,
        *,
        images: int,
        own_seconds: float,
        began_at: float,
        ended_at: float,
    ) -> None:
        """Take note of a chunk that a worker has done, by the monotonic clock.

        A worker does two chunks side by side, so a chunk's time is that since the one before it
        ended; but no more than the worker says that it needed, which leaves out the loading of
        models.
        """
        key = (slot, fingerprint)
        with self._lock:
            before = self._ended.get(slot, began_at)
            self._ended[slot] = max(before, ended_at)
            seconds = max(min(ended_at - max(began_at, before), own_seconds), _LEAST_SECONDS)
            measured = self._measured.setdefault(key, _Measured(0.0, 0.0))
            keep = 0.5 ** (seconds / _HALF_LIFE_SECONDS)
            measured.images = keep * measured.images + images
            measured.seconds = keep * measured.seconds + seconds
            self._latest[slot] = key
            self._changed.add(key)

    def rate(self, slot: str, fingerprint: str) -> float | None:
        """Return images per second, or None when nothing is known."""
        key = (slot, fingerprint)
        with self._lock:
            measured = self._measured.get(key)
            known = self._known
        if measured is not None:
            return measured.images_per_second
        if known is None:
            known = self._load()
        return known.get(key)

    def latest(self, slot: str) -> float | None:
        """Return the images per second that were measured last, with whatever model."""
        with self._lock:
            key = self._latest.get(slot)
            known = self._known
        if key is not None:
            return self.rate(*key)
        if known is None:
            known = self._load()
        of_slot = [rate for (at, _), rate in known.items() if at == slot]
        return of_slot[-1] if of_slot else None

    def knows(self, fingerprint: str) -> bool:
        """Say whether any worker has ever done a chunk with this model."""
        with self._lock:
            known = self._known
            if any(model == fingerprint for _, model in self._measured):
                return True
        if known is None:
            known = self._load()
        return any(model == fingerprint for _, model in known)

    def wish(self, slot: str, fingerprint: str) -> int:
        """Return how many images a chunk should have for this worker."""
        rate = self.rate(slot, fingerprint)
        if rate is None:
            return UNKNOWN_CHUNK_IMAGES
        return max(MIN_CHUNK_IMAGES, round(rate * self._target_seconds))

    def store(self, *, at_once: bool = False) -> None:
        """Let what was measured outlive this process; does so every ten seconds at most."""
        with self._lock:
            now = self._monotonic()
            if not self._changed or not (at_once or now - self._stored_at >= _STORE_SECONDS):
                return
            self._stored_at = now
            changed, self._changed = self._changed, set()
            rates = {key: self._measured[key].images_per_second for key in changed}
        try:
            self._store.record_worker_rates(rates)
        except ImagedexError as error:  # No run must end for want of them.
            _log.warning("rates_not_stored", error=str(error))
            with self._lock:
                self._changed |= changed

    def _load(self) -> dict[tuple[str, str], float]:
        known = dict(self._store.worker_rates())
        with self._lock:
            self._known = known
        return known
