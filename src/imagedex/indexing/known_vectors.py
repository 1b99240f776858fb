"""Vectors that need no computing, since a file of the same content was embedded before.

The controller tells a worker which contents a file may have, going by its size, and where their
vectors lie; the worker reads and hashes the file, and takes the vector when the hash is one of
them. So a file that was moved, renamed or copied, or whose root is mounted elsewhere, is read
once and costs no inference.
"""

# Image paths are strings here, as scandir and the kernel give them.
# ruff: noqa: PTH116

from __future__ import annotations

import os
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import structlog
from numpy.typing import NDArray

from imagedex.catalog import Catalog
from imagedex.core.errors import StorageError
from imagedex.core.images import FileStamp, ImageFacts
from imagedex.ingest import KnownImage
from imagedex.segments import IndexFiles

_LIKE = 32  # Unpublished contents that a file may turn out to be.

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KnownVector:
    """Where the vector of a content lies."""

    content_hash: str
    file: str  # Below the index prefix: a segment's Parquet file, or a part file.
    row: int


KnownVectors = Mapping[str, tuple[KnownVector, ...]]
"""By image path: what the file may turn out to be."""


class KnownContents:
    """What the index holds already, and what the running job has embedded and not published.

    For the thread that runs the job. Without a published generation of this fingerprint only
    the job's own parts count. One that is not to be used knows nothing.
    """

    def __init__(
        self,
        catalog: Catalog,
        index_id: int,
        files: IndexFiles,
        *,
        fingerprint: str,
        is_used: bool = True,
    ) -> None:
        self._catalog = catalog
        self._index_id = index_id
        self._files = files
        self._fingerprint = fingerprint
        self._is_used = is_used
        self._segments: dict[int, str] = {}
        # By size, the newest: some cameras make files of one size only, and all of them would
        # travel with each file.
        self._unpublished: dict[int, deque[KnownVector]] = defaultdict(lambda: deque(maxlen=_LIKE))
        self.follow_generation()

    def follow_generation(self) -> None:
        """Look at the current generation; what the job had embedded is in it, or is lost."""
        self._unpublished.clear()
        manifest = self._files.current()
        is_usable = manifest is not None and manifest.fingerprint == self._fingerprint
        segments = manifest.segments if manifest is not None and is_usable else ()
        self._segments = {segment.number: segment.parquet.name for segment in segments}

    def be_of(self, fingerprint: str) -> None:
        """Count on vectors of this model alone from now on."""
        if fingerprint != self._fingerprint:
            self._fingerprint = fingerprint
            self.follow_generation()

    def add_part(self, name: str | None) -> None:
        """Count on a part file of the job, if there is one, until it is published."""
        if name is None or not self._is_used:
            return
        if self._files.part_fingerprint(name) != self._fingerprint:
            return  # It is lost, or of the model that the index had before.
        for row, facts in enumerate(self._files.read_part_facts(name)):
            known = KnownVector(facts.content_hash, name, row)
            self._unpublished[facts.stamp.size].append(known)

    def of(self, image_paths: Sequence[str]) -> KnownVectors | None:
        """Return what these files may turn out to be, or None when nothing is to be used."""
        if not self._is_used:
            return None
        found = {path: self._like(path) for path in image_paths}
        return {path: known for path, known in found.items() if known}

    def _like(self, image_path: str) -> tuple[KnownVector, ...]:
        try:
            status = os.stat(image_path)
        except (OSError, ValueError):
            return ()  # Whoever reads it says why it cannot be read.
        known = list(self._unpublished.get(status.st_size, ()))
        if self._segments:
            stamp = FileStamp(status.st_size, status.st_mtime_ns)
            for content in self._catalog.contents_like(self._index_id, stamp):
                file = self._segments.get(content.location.segment)
                if file is not None:
                    known.append(KnownVector(content.content_hash, file, content.location.row))
        return tuple({vector.content_hash: vector for vector in known}.values())


def take_vectors(
    files: IndexFiles, images: Iterable[KnownImage], known: KnownVectors, *, fingerprint: str
) -> dict[str, tuple[ImageFacts, NDArray[np.float32]]]:
    """Return facts and vectors of images whose content is known, by path.

    What cannot be read, or is another content than was said or of another model, is left out:
    such an image must be embedded.
    """
    by_file: dict[str, list[tuple[KnownImage, int]]] = defaultdict(list)
    for image in images:
        vector = next(v for v in known[image.image_path] if v.content_hash == image.content_hash)
        by_file[vector.file].append((image, vector.row))
    taken = {}
    for file, wanted in by_file.items():
        try:
            part = files.read_rows(file, [row for _, row in wanted])
        except StorageError as error:
            _log.warning("known_vectors_not_read", file=file, error=str(error))
            continue
        if part.fingerprint != fingerprint:
            continue
        for (image, _), facts, row in zip(wanted, part.facts, part.vectors, strict=True):
            if facts.content_hash == image.content_hash and np.isfinite(row).all():
                own = replace(facts, image_path=image.image_path, stamp=image.stamp)
                taken[image.image_path] = (own, row)
    return taken


class RecentVectors:
    """The vectors that a worker computed last, by content hash.

    They serve copies that the worker meets before the controller could hear of the first one.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def get(self, content_hash: str) -> NDArray[np.float32] | None:
        """Return the vector of a content, if it is remembered."""
        return self._vectors.get(content_hash)

    def remember(self, content_hash: str, vector: NDArray[np.float32]) -> None:
        """Keep a vector, and forget the oldest when there are too many."""
        self._vectors[content_hash] = vector
        if len(self._vectors) > self._kept:
            self._vectors.popitem(last=False)
