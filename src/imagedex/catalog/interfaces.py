"""What the database knows of the images of an index.

Methods that take a ``Transaction`` become durable with it, together with whatever else it
holds; that is how catalog rows and a job's checkpoint are committed as one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from imagedex.core.images import FileStamp, ImageFacts, ImageFailure, RowLocation

if TYPE_CHECKING:
    from imagedex.database import Transaction


class ImageState(StrEnum):
    """Where an image stands."""

    INDEXED = "indexed"
    FAILED = "failed"
    # Removed images have no row.


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """An index as the database knows it."""

    index_id: int
    index_prefix: Path
    generation: int  # The generation that the catalog's rows describe; 0 for none.
    updated_at: datetime | None  # When that generation was recorded.
    is_moving: bool = False  # Some locations are still those before a merge.


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """An image as the database knows it."""

    image_path: str
    state: ImageState
    stamp: FileStamp | None  # As it was when indexed or failed; None when it could not be read.
    content_hash: str | None
    location: RowLocation | None  # Of its vector; also kept when a later version failed.
    width: int | None
    height: int | None
    reason: str | None  # Of the failure.
    detail: str | None


@dataclass(frozen=True, slots=True)
class Outline:
    """Some images in columns, since there can be a million of them."""

    image_paths: list[str]
    sizes: list[int]  # -1 where the file could not be read.
    mtimes_ns: list[int]  # 0 where the file could not be read.
    is_indexed: list[int]  # 1 where that very version is indexed, otherwise 0.


@dataclass(frozen=True, slots=True)
class StoredContent:
    """The content of an indexed image, and where its vector lies."""

    content_hash: str
    location: RowLocation
    image_path: str


@dataclass(frozen=True, slots=True)
class CatalogCounts:
    """How many images of an index are in which state.

    An image that is indexed and whose later version failed counts as both.
    """

    indexed: int  # Those that a search can find: the images of the recorded generation.
    failed: int


class Catalog(Protocol):
    """All known images of all indexes. Safe to call from several threads."""

    def ensure_index(self, index_prefix: Path) -> IndexEntry:
        """Return the index's entry, creating it when this prefix is new."""
        ...

    def get_index(self, index_prefix: Path) -> IndexEntry | None:
        """Return the index's entry, or None when nothing was ever indexed there."""
        ...

    def list_indexes(self) -> list[IndexEntry]:
        """Return all indexes, in the order of their creation."""
        ...

    def lookup(self, index_id: int, image_paths: Sequence[str]) -> dict[str, CatalogEntry]:
        """Return the entries of those paths that are known. Any number of paths."""
        ...

    def outline(self, index_id: int, directory: str) -> Iterator[Outline]:
        """Yield all images below a directory, some thousands at a time.

        Each batch is as of its own moment.
        """
        ...

    def count_below(self, index_id: int, directory: str) -> int:
        """Return how many images are known below a directory."""
        ...

    def missing_since(self, index_id: int, directory: str) -> dict[str, float]:
        """Return the images below a directory that were noted as missing, and since when.

        Moments are seconds since the epoch.
        """
        ...

    def note_missing(
        self,
        transaction: Transaction,
        index_id: int,
        directory: str,
        image_paths: Iterable[str],
        *,
        now: float,
    ) -> None:
        """Let exactly these images below a directory be missing, from ``now`` or as before.

        An image that is indexed again, or forgotten, is no longer missing.
        """
        ...

    def contents_like(self, index_id: int, stamp: FileStamp) -> list[StoredContent]:
        """Return contents of indexed images that a file of this stamp may have: those of its size.

        A few dozen at most. Where more images have that size, those of its mtime come first.
        """
        ...

    def locations(self, index_id: int) -> Iterator[tuple[str, RowLocation]]:
        """Yield each image that has a vector, and where, all as of one moment; in no order."""
        ...

    def failures(self, index_id: int) -> Iterator[ImageFailure]:
        """Yield each image that failed, also those of which an older version is indexed."""
        ...

    def counts(self, index_id: int) -> CatalogCounts:
        """Return the totals, cheaply (kept up to date, not counted)."""
        ...

    def record_generation(
        self,
        transaction: Transaction,
        index_id: int,
        *,
        generation: int,
        indexed: Iterable[tuple[RowLocation, ImageFacts]],
    ) -> None:
        """Bring the catalog to a published generation: its new rows in.

        A generation that is recorded already, or an older one, changes nothing, so that it may
        be replayed. Of a path that comes twice in ``indexed`` the last one counts.
        """
        ...

    def begin_move(self, transaction: Transaction, index_id: int, *, generation: int) -> None:
        """Bring the catalog to a generation that only moved rows, but for their locations.

        These follow by ``move``, or by ``place`` after a crash; until ``end_move`` the index is
        known as moving. A generation that is recorded already, or an older one, changes nothing.
        """
        ...

    def move(
        self,
        transaction: Transaction,
        index_id: int,
        moves: Sequence[tuple[RowLocation, RowLocation]],
    ) -> None:
        """Let what lies at each first location lie at the second; nothing else of it changes."""
        ...

    def place(
        self,
        transaction: Transaction,
        index_id: int,
        rows: Sequence[tuple[RowLocation, ImageFacts]],
        *,
        segments: Collection[int],
    ) -> None:
        """Let images lie in these rows whose location is in none of ``segments`` (reconciliation).

        Whatever else is known of an image stays, also that a later version of it failed. One
        that is not known as indexed is passed over.
        """
        ...

    def end_move(self, transaction: Transaction, index_id: int) -> None:
        """Record that all locations are those of the generation."""
        ...

    def bring_in(
        self,
        transaction: Transaction,
        index_id: int,
        rows: Sequence[tuple[RowLocation, ImageFacts]],
    ) -> None:
        """Bring in rows of a generation that is recorded when all of them are (reconciliation).

        Rows may come twice, after a crash. Of a path that comes twice the last one counts.
        """
        ...

    def bring_in_moved(
        self,
        transaction: Transaction,
        index_id: int,
        rows: Sequence[tuple[RowLocation, ImageFacts]],
    ) -> None:
        """Bring in rows that a merge has moved, as ``bring_in`` does (reconciliation).

        Whatever else is known of an image stays, also that a later version of it failed, or that
        its file is missing. An image that is not known as indexed with this content becomes so.
        """
        ...

    def forget_lost(
        self, transaction: Transaction, index_id: int, *, segments: Collection[int]
    ) -> None:
        """Forget each image whose vector lies in none of these segments (reconciliation)."""
        ...

    def forget_images(
        self, transaction: Transaction, index_id: int, image_paths: Sequence[str]
    ) -> None:
        """Forget images that are gone, indexed or failed; unknown paths are passed over.

        Raises NotFound for an index that is not known.
        """
        ...

    def record_tombstones(
        self, transaction: Transaction, index_id: int, tombstones: Iterable[RowLocation]
    ) -> None:
        """Forget each image whose vector still lies in one of these rows (reconciliation)."""
        ...

    def forget_index(self, transaction: Transaction, index_id: int) -> None:
        """Forget all images of an index and set its generation to 0 (its files went back)."""
        ...

    def record_failures(
        self,
        transaction: Transaction,
        index_id: int,
        failures: Sequence[ImageFailure],
    ) -> None:
        """Record images that failed. An older version of it that is indexed stays findable."""
        ...
