"""What a job has to do: what a scan or a notifier says, held against the catalog."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from imagedex.catalog import Catalog, CatalogEntry, ImageState
from imagedex.core.images import FailureReason, ImageFailure
from imagedex.ingest import ImageRoots, ScannedFile
from imagedex.jobs import ChunkAction, PlannedChunk

LOOKUP_IMAGES = 2000
"""Images that are looked up in the catalog at once."""

_LASTING_REASONS = frozenset(
    {
        FailureReason.EMPTY,
        FailureReason.TRUNCATED,
        FailureReason.NOT_AN_IMAGE,
        FailureReason.DAMAGED,
        FailureReason.TOO_MANY_PIXELS,
        FailureReason.TOO_MANY_BYTES,
    }
)
"""Failures that lie in the file's bytes: the same bytes would fail in the same way again."""


@dataclass(slots=True)
class Plan:
    """What a job covers, and what is left to do of it."""

    total_images: int = 0
    settled_images: int = 0  # Unchanged, gone, or failed: no worker is needed.
    embed: list[str] = field(default_factory=list)  # In the order in which they were found.
    remove: list[str] = field(default_factory=list)  # Gone, and still in the index.
    failures: list[ImageFailure] = field(default_factory=list)

    def chunks(self, chunk_images: int) -> Iterator[PlannedChunk]:
        """Cut the work into chunks of at most ``chunk_images`` images."""
        for action, paths in ((ChunkAction.REMOVE, self.remove), (ChunkAction.EMBED, self.embed)):
            for start in range(0, len(paths), chunk_images):
                yield PlannedChunk(action, tuple(paths[start : start + chunk_images]))

    def settle(self, failure: ImageFailure | None = None) -> None:
        """Count an image that needs no worker."""
        self.total_images += 1
        self.settled_images += 1
        if failure is not None:
            self.failures.append(failure)

    def add_work(self, image_path: str) -> None:
        """Count an image that a worker must embed."""
        self.total_images += 1
        self.embed.append(image_path)

    def add_removal(self, image_path: str) -> None:
        """Count an image that is gone and must leave the index."""
        self.settle()
        self.remove.append(image_path)


def plan_scan(
    scanned: Iterable[ScannedFile | ImageFailure], catalog: Catalog, index_id: int, *, force: bool
) -> Plan:
    """Plan a scan: new and changed files are embedded, unchanged ones are settled.

    A file counts as unchanged when size and mtime are those that the catalog recorded. With
    ``force`` every file is embedded. Files that the catalog knows and the scan did not find
    are left as they are: a scan alone cannot tell a deletion from a missing mount.
    """
    plan = Plan()
    for batch in _batches(scanned, LOOKUP_IMAGES):
        files = [item for item in batch if isinstance(item, ScannedFile)]
        known = catalog.lookup(index_id, [file.image_path for file in files])
        for item in batch:
            if isinstance(item, ImageFailure):
                plan.settle(item)
            else:
                _plan_scanned(plan, item, known.get(item.image_path), force=force)
    return plan


def _plan_scanned(
    plan: Plan, file: ScannedFile, entry: CatalogEntry | None, *, force: bool
) -> None:
    if force or entry is None or entry.stamp != file.stamp:
        plan.add_work(file.image_path)
    elif entry.state is ImageState.INDEXED:
        plan.settle()
    elif entry.reason in _LASTING_REASONS:
        # Reported again, since the job covers it, but not tried again.
        reason = FailureReason(entry.reason)
        plan.settle(ImageFailure(file.image_path, reason, entry.detail or "", entry.stamp))
    else:
        plan.add_work(file.image_path)


def plan_notified(
    image_paths: Sequence[str], catalog: Catalog, index_id: int, roots: ImageRoots
) -> Plan:
    """Plan what a notifier named: a file that is there is embedded, at the notifier's word.

    A file that is not there is removed from the index when its image root is present. While
    the root is absent (a missing mount is not a deletion) it fails as vanished.
    """
    plan = Plan()
    for batch in _batches(dict.fromkeys(image_paths), LOOKUP_IMAGES):
        known = catalog.lookup(index_id, batch)
        for image_path in batch:
            if os.path.lexists(image_path):
                plan.add_work(image_path)
            else:
                _plan_absent(plan, image_path, known, roots)
    return plan


def _plan_absent(
    plan: Plan, image_path: str, known: Mapping[str, CatalogEntry], roots: ImageRoots
) -> None:
    root = roots.root_of(image_path)
    if not roots.is_present(root):
        detail = f"The image root {str(root)!r} is empty or missing; is its share mounted?"
        plan.settle(ImageFailure(image_path, FailureReason.VANISHED, detail))
    elif image_path in known:
        plan.add_removal(image_path)
    else:
        detail = "There is no such file, and none was indexed under this path."
        plan.settle(ImageFailure(image_path, FailureReason.VANISHED, detail))


ItemT = TypeVar("ItemT")


def _batches(items: Iterable[ItemT], size: int) -> Iterator[list[ItemT]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
