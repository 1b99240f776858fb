"""What a job has to do: what a scan or a notifier says, held against the catalog."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TypeVar

from imagedex.catalog import Catalog, CatalogEntry, ImageState
from imagedex.core.images import FailureReason, ImageFailure
from imagedex.indexing.absences import is_gone
from imagedex.indexing.known_files import KnownFiles
from imagedex.ingest import ImageRoots, ScannedFile, stamp_of
from imagedex.jobs import ChunkAction, PlannedChunk

ItemT = TypeVar("ItemT")

LOOKUP_IMAGES = 2000
"""Images that are looked up in the catalog at once."""

_BATCHES_AHEAD = 100
"""Of the scan, while the catalog is being read; some 50 MB."""

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
    added: int = 0  # Of those to embed: unknown before.
    unchanged: int = 0  # Of those settled.
    # Those that may still be written, and whether they are known.
    unsettled: list[tuple[ScannedFile, bool]] = field(default_factory=list)
    left_unsettled: int = 0  # They wait for the next scan, and are not among the total.
    missing: list[str] = field(default_factory=list)  # Known, and not there any more.

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

    def settle_unchanged(self, images: int) -> None:
        """Count images that are as they were."""
        self.total_images += images
        self.settled_images += images
        self.unchanged += images

    def add_work(self, image_path: str, *, is_known: bool = True) -> None:
        """Count an image that a worker must embed."""
        self.total_images += 1
        self.added += not is_known
        self.embed.append(image_path)

    def add_removal(self, image_path: str) -> None:
        """Count an image that is gone and must leave the index."""
        self.settle()
        self.remove.append(image_path)


def plan_scan(
    scanned: Iterable[ScannedFile | ImageFailure],
    catalog: Catalog,
    index_id: int,
    directory: str,
    *,
    force: bool,
    settled_before_ns: int | None = None,
) -> Plan:
    """Plan a scan of ``directory``: new and changed files are embedded, unchanged ones settled.

    A file counts as unchanged when size and mtime are those that the catalog recorded. With
    ``force`` every file is embedded. A file that is to be embedded and has an mtime of
    ``settled_before_ns`` or later goes to ``Plan.unsettled`` instead: it may still be written.
    Known files that the scan did not meet, and that are not there when it is over, are
    ``Plan.missing``. One pass; memory grows with what has changed, and by 49 bytes for each
    known file.
    """
    plan = Plan()
    unread: set[str] = set()
    scan = _ScanPlanner(plan, catalog, index_id, force=force, settled_before_ns=settled_before_ns)
    batches = _batches(scanned, LOOKUP_IMAGES)
    # Side by side: the catalog is mostly SQLite's work, the scan the kernel's and Python's.
    with ThreadPoolExecutor(1, "catalog-reader") as reader:
        reading = reader.submit(lambda: KnownFiles(catalog.outline(index_id, directory)))
        ahead = _take_until_done(batches, reading)
        known = reading.result()
    for batch in chain(_emptied(ahead), batches):
        files = [item for item in batch if type(item) is ScannedFile]
        if len(files) < len(batch):
            failures = [item for item in batch if isinstance(item, ImageFailure)]
            unread.update(failure.image_path for failure in failures)
            for failure in failures:
                plan.settle(failure)
        if not files:
            continue
        paths, sizes, mtimes = zip(*files, strict=True)
        unchanged = known.are_unchanged(paths, sizes, mtimes)
        if force:
            unchanged[:] = False
        same = int(unchanged.sum())
        plan.settle_unchanged(same)
        if same < len(files):
            scan.add([file for file, is_same in zip(files, unchanged, strict=True) if not is_same])
    # Nothing below a directory that could not be read may be taken for deleted.
    plan.missing = [
        path
        for path in known.not_met(catalog.outline(index_id, directory))
        if not _is_below(path, unread) and is_gone(path)
    ]
    return plan


def _take_until_done(
    batches: Iterator[list[ItemT]], reading: Future[KnownFiles]
) -> deque[list[ItemT]]:
    """Take batches while something else is read, and not more than fit into memory."""
    taken: deque[list[ItemT]] = deque()
    while not reading.done() and len(taken) < _BATCHES_AHEAD:
        batch = next(batches, None)
        if batch is None:
            break
        taken.append(batch)
    return taken


def _emptied(batches: deque[list[ItemT]]) -> Iterator[list[ItemT]]:
    while batches:
        yield batches.popleft()


def _is_below(path: str, directories: set[str]) -> bool:
    while directories and path:
        path = path.rpartition("/")[0]
        if path in directories:
            return True
    return False


class _ScanPlanner:
    """Takes files that are not as they were into a plan."""

    def __init__(
        self,
        plan: Plan,
        catalog: Catalog,
        index_id: int,
        *,
        force: bool,
        settled_before_ns: int | None,
    ) -> None:
        self._plan = plan
        self._catalog = catalog
        self._index_id = index_id
        self._force = force
        self._settled_before_ns = settled_before_ns

    def add(self, files: Sequence[ScannedFile]) -> None:
        """Plan what is to be done with these files."""
        known = self._catalog.lookup(self._index_id, [file.image_path for file in files])
        for file in files:
            self._add(file, known.get(file.image_path))

    def _add(self, file: ScannedFile, entry: CatalogEntry | None) -> None:
        if not self._force and entry is not None and entry.stamp == file.stamp:
            if entry.state is ImageState.INDEXED:
                self._plan.settle_unchanged(1)
                return
            if entry.reason in _LASTING_REASONS:
                # Reported again, since the job covers it, but not tried again.
                reason = FailureReason(entry.reason)
                self._plan.settle(
                    ImageFailure(file.image_path, reason, entry.detail or "", entry.stamp)
                )
                return
        latest = self._settled_before_ns
        if latest is not None and file.mtime_ns >= latest:
            self._plan.unsettled.append((file, entry is not None))
        else:
            self._plan.add_work(file.image_path, is_known=entry is not None)


def settle_down(plan: Plan) -> None:
    """Look again at the files that were unsettled, when the settle time is over.

    Those that are as they were are planned; the others are counted and left to the next scan.
    """
    unsettled, plan.unsettled = plan.unsettled, []
    for file, is_known in unsettled:
        try:
            stamp = stamp_of(os.stat(file.image_path))  # noqa: PTH116 - a path as the kernel gave it.
        except OSError:
            stamp = None  # Gone, or out of reach: there is nothing to read now.
        if stamp == file.stamp:
            plan.add_work(file.image_path, is_known=is_known)
        else:
            plan.left_unsettled += 1


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


def _batches(items: Iterable[ItemT], size: int) -> Iterator[list[ItemT]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
