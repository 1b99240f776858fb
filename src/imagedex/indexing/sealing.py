"""Ending what the former owner of the jobs was about to publish."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from imagedex.core.errors import LeaseLost
from imagedex.jobs import JobStore
from imagedex.segments import IndexFiles

_ATTEMPTS = 5

_log = structlog.get_logger(__name__)


class Seals:
    """Which indexes this process has sealed since it took the jobs over.

    The database refuses the former owner at once. What lies on the index's storage refuses it from
    the moment when the current generation was published once more, under a fence that is above
    all of its own: so that is done before anything else, or as soon as the storage is there.
    """

    def __init__(self, jobs: JobStore, files_of: Callable[[Path], IndexFiles]) -> None:
        """Take the jobs of the new owner, which has raised all fences by taking over."""
        self._jobs = jobs
        self._files_of = files_of
        self._lock = threading.Lock()
        self._sealed: set[Path] = set()

    def note_published(self, index_prefix: Path) -> None:
        """Take note that this owner has published: what it would seal follows its own generation.

        A seal after it would refuse the very lease that has published.
        """
        with self._lock:
            self._sealed.add(index_prefix)

    def seal(self, index_prefix: Path, index_id: int) -> None:
        """Seal an index, once. The caller has its turn. Raises CorruptIndex, StorageError.

        Leases that were given before may be below the seal; they are given anew.
        """
        with self._lock:
            if index_prefix in self._sealed:
                return
        files = self._files_of(index_prefix)
        for attempt in range(_ATTEMPTS):
            manifest = files.current()
            if manifest is None:
                return  # Nothing follows nothing but a first generation, which is good.
            highest = max(manifest.fence, manifest.merge_fence)
            fence = self._jobs.next_fence(index_id, above=highest)
            try:
                sealed = files.seal(fence)
            except LeaseLost:
                # The former owner has published in this moment, for the last time.
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            break
        with self._lock:
            self._sealed.add(index_prefix)
        _log.info(
            "index_sealed",
            index_prefix=str(index_prefix),
            fence=fence,
            generation=None if sealed is None else sealed.generation,
        )
