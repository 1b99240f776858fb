"""Snapshots in memory: requests are kept as jobs that nobody runs."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from imagedex.core.errors import Conflict, CorruptIndex, InvalidRequest, NotFound
from imagedex.jobs import Job, JobKind, Priority
from imagedex.segments import FileEntry, Manifest, Snapshot
from imagedex.testing.indexing import InMemoryIndexing

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MOMENT = datetime(2025, 11, 14, 12, 34, 56, 789000, tzinfo=UTC)


class InMemorySnapshots:
    """There is one snapshot, ``kept``, until it is deleted; one that is damaged can be added."""

    def __init__(self, indexing: InMemoryIndexing) -> None:
        self.damaged: list[CorruptIndex] = []
        self._indexing = indexing
        self._snapshots = {"kept": _snapshot("kept")}

    def list(self, index_prefix: str | None = None) -> list[Snapshot | CorruptIndex]:
        self._indexing.locations.resolve(index_prefix)
        return [*self._snapshots.values(), *self.damaged]

    def create(
        self,
        name: str | None = None,
        *,
        index_prefix: str | None = None,
    ) -> tuple[Job, str]:
        chosen = name or "20251114T123456Z-generation-3"
        _require_name(chosen)
        if chosen in self._snapshots:
            raise Conflict(f"There is a snapshot {chosen!r} already.")
        job = self._submit(JobKind.SNAPSHOT, chosen, index_prefix)
        return job, chosen

    def restore(
        self,
        name: str,
        *,
        index_prefix: str | None = None,
    ) -> Job:
        self._require(name)
        return self._submit(JobKind.RESTORE, name, index_prefix)

    def delete(self, name: str, *, index_prefix: str | None = None) -> None:
        self._indexing.locations.resolve(index_prefix)
        self._require(name)
        del self._snapshots[name]

    def _submit(self, kind: JobKind, name: str, index_prefix: str | None) -> Job:
        self._indexing.locations.resolve(index_prefix)
        return self._indexing.submit(kind, {"name": name}, Priority.NORMAL, None, images=5)

    def _require(self, name: str) -> None:
        _require_name(name)
        if name not in self._snapshots:
            raise NotFound(f"There is no snapshot {name!r}.")


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{name!r} cannot name a snapshot.")


def _snapshot(name: str) -> Snapshot:
    manifest = Manifest(
        generation=3,
        fence=1,
        model_name="bundled",
        fingerprint="f",
        dim=384,
        created_at=_MOMENT,
        images=5,
        next_segment=2,
        segments=(),
        tombstones=(),
    )
    failures = FileEntry("failures.jsonl", 12, "a" * 64)
    return Snapshot(name, _MOMENT, Path("/srv/index"), manifest, failures, failed_images=1)
