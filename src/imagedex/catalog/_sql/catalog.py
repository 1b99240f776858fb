"""The catalog in the database."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, tuple_, update

from imagedex.catalog._sql.batches import MAX_PARAMETERS, in_batches
from imagedex.catalog._sql.rows import catalog_entry, failed_values, index_entry, indexed_values
from imagedex.catalog._sql.sizes import ContentSizes
from imagedex.catalog._sql.statements import (
    CONTENTS_OF_SIZE,
    FORGET_MISSING,
    IMAGES_BY_PATH,
    INDEXES,
    KNOWN,
    LIKE,
    MOVE,
    OUTLINE,
    OUTLINE_ROWS,
    PLACE,
    by_path,
)
from imagedex.catalog._sql.tally import Tally, changed_by, known_images
from imagedex.catalog.interfaces import (
    CatalogCounts,
    CatalogEntry,
    ImageState,
    IndexEntry,
    Outline,
    StoredContent,
)
from imagedex.core.errors import NotFound
from imagedex.core.images import FailureReason, FileStamp, ImageFacts, ImageFailure, RowLocation
from imagedex.database import Database, Snapshot, Transaction
from imagedex.database.dialects import insert_many, one_row
from imagedex.database.tables import images, indexes, missing_images, moving_indexes

_BATCH = 5000  # Images that are held in memory at once, however long an iterable is.


class SqlCatalog:
    """The catalog in a :class:`Database`; see :class:`imagedex.catalog.Catalog`.

    An image whose later version failed counts twice, as indexed (its older vector is still
    found) and as failed: ``indexed`` is the number of images that a search can find.
    """

    def __init__(self, database: Database, *, now: Callable[[], float] | None = None) -> None:
        """Take the database, whose clock counts unless ``now`` is another."""
        self._database = database
        self._clock = now
        self._name = secrets.token_hex(8)
        self._sizes = ContentSizes(self._name)

    def ensure_index(self, index_prefix: Path) -> IndexEntry:
        """Return the index's entry, creating it when this prefix is new."""
        entry = self.get_index(index_prefix)
        if entry is not None:
            return entry
        with self._database.transaction() as transaction:
            connection = transaction.connection
            # Another process may have created it since.
            row = connection.execute(_index_by_prefix(index_prefix)).one_or_none()
            if row is None:
                values = {"index_prefix": str(index_prefix), "created_at": self._now(transaction)}
                connection.execute(insert(indexes).values(values))
                row = connection.execute(_index_by_prefix(index_prefix)).one()
            return index_entry(row)

    def get_index(self, index_prefix: Path) -> IndexEntry | None:
        """Return the index's entry, or None when nothing was ever indexed there."""
        with self._database.read() as snapshot:
            row = snapshot.connection.execute(_index_by_prefix(index_prefix)).one_or_none()
        return None if row is None else index_entry(row)

    def list_indexes(self) -> list[IndexEntry]:
        """Return all indexes, in the order of their creation."""
        with self._database.read() as snapshot:
            rows = snapshot.connection.execute(INDEXES.order_by(indexes.c.index_id)).all()
        return [index_entry(row) for row in rows]

    def lookup(self, index_id: int, image_paths: Sequence[str]) -> dict[str, CatalogEntry]:
        """Return the entries of those paths that are known, all as of one moment."""
        found: dict[str, CatalogEntry] = {}
        with self._database.read() as snapshot:
            for paths in in_batches(image_paths, MAX_PARAMETERS):
                rows = snapshot.connection.execute(IMAGES_BY_PATH, by_path(index_id, paths))
                found.update((row[0], catalog_entry(row)) for row in rows.all())
        return found

    def outline(self, index_id: int, directory: str) -> Iterator[Outline]:
        """Yield all images below a directory, some thousands at a time."""
        first, end = _range_below(directory)
        after = first
        while True:
            with self._database.read() as snapshot:
                # A column at a time, which the driver reads without keeping other threads waiting:
                # a scan of a million unchanged files takes little longer than their rows would.
                values = (index_id, after, end, OUTLINE_ROWS)
                after, *columns = one_row(snapshot.connection, OUTLINE, values)
            outline = Outline(*map(json.loads, columns))
            if outline.image_paths:
                yield outline
            if len(outline.image_paths) < OUTLINE_ROWS:
                return

    def count_below(self, index_id: int, directory: str) -> int:
        """Return how many images are known below a directory."""
        first, end = _range_below(directory)
        query = select(func.count()).where(
            images.c.index_id == index_id, images.c.image_path > first, images.c.image_path < end
        )
        with self._database.read() as snapshot:
            return int(snapshot.connection.execute(query).scalar_one())

    def missing_since(self, index_id: int, directory: str) -> dict[str, float]:
        """Return the images below a directory that were noted as missing, and since when."""
        query = select(missing_images.c.image_path, missing_images.c.since)
        with self._database.read() as snapshot:
            rows = snapshot.connection.execute(query.where(*_missing_below(index_id, directory)))
            return {row[0]: row[1] for row in rows}

    def note_missing(
        self,
        transaction: Transaction,
        index_id: int,
        directory: str,
        image_paths: Iterable[str],
        *,
        now: float,
    ) -> None:
        """Let exactly these images below a directory be missing, from ``now`` or as before."""
        connection = transaction.connection
        _recorded_generation(connection, index_id)
        query = select(missing_images.c.image_path, missing_images.c.since)
        rows = connection.execute(query.where(*_missing_below(index_id, directory)))
        known = {row[0]: row[1] for row in rows}
        values = {
            path: {"index_id": index_id, "image_path": path, "since": known.get(path, now)}
            for path in image_paths
        }
        if values.keys() == known.keys():
            return
        connection.execute(delete(missing_images).where(*_missing_below(index_id, directory)))
        insert_many(connection, missing_images, list(values.values()))

    def contents_like(self, index_id: int, stamp: FileStamp) -> list[StoredContent]:
        """Return contents of indexed images that a file of this stamp may have."""
        with self._database.read() as snapshot:
            # A camera may make files of one size only; a move keeps the mtime.
            keys = self._sizes.keys_like(snapshot.connection, index_id, stamp, most=LIKE)
            if not keys:
                return []
            values = {"of_index": index_id, "of_size": stamp.size, "keys": keys}
            rows = snapshot.connection.execute(CONTENTS_OF_SIZE, values).all()
        contents = {
            row[3]: StoredContent(row[0], RowLocation(row[1], row[2]), row[3]) for row in rows
        }
        return list(contents.values())

    def locations(self, index_id: int) -> Iterator[tuple[str, RowLocation]]:
        """Yield each image that has a vector, and where, all as of one moment; in no order."""
        query = select(images.c.image_path, images.c.segment, images.c.segment_row).where(
            images.c.index_id == index_id, images.c.segment.is_not(None)
        )
        with self._database.read() as snapshot:
            for path, segment, row in snapshot.connection.execute(
                query.execution_options(yield_per=_BATCH)
            ):
                yield path, RowLocation(segment, row)

    def failures(self, index_id: int) -> Iterator[ImageFailure]:
        """Yield each image that failed, also those of which an older version is indexed."""
        query = select(
            images.c.image_path, images.c.reason, images.c.detail, images.c.size, images.c.mtime_ns
        ).where(images.c.index_id == index_id, images.c.state == ImageState.FAILED.value)
        with self._database.read() as snapshot:
            for path, reason, detail, size, mtime_ns in snapshot.connection.execute(
                query.execution_options(yield_per=_BATCH)
            ):
                stamp = None if size is None else FileStamp(size, mtime_ns)
                yield ImageFailure(path, FailureReason(reason), detail, stamp)

    def counts(self, index_id: int) -> CatalogCounts:
        """Return the totals that are kept with the index. Raises NotFound."""
        query = select(indexes.c.indexed_images, indexes.c.failed_images)
        with self._database.read() as snapshot:
            row = snapshot.connection.execute(
                query.where(indexes.c.index_id == index_id)
            ).one_or_none()
        if row is None:
            raise NotFound(f"There is no index with the number {index_id}.")
        return CatalogCounts(indexed=row.indexed_images, failed=row.failed_images)

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
        be replayed. Of a path that comes twice the last one counts. ``indexed`` may be of any
        length. Raises NotFound for an index that is not known.
        """
        connection = transaction.connection
        if generation <= _recorded_generation(connection, index_id):
            return
        tally = self._tally(transaction, index_id)
        for batch in in_batches(indexed, _BATCH):
            _store_rows(tally, connection, index_id, batch)
        tally.settle(generation=generation, updated_at=self._now(transaction))

    def bring_in(
        self,
        transaction: Transaction,
        index_id: int,
        rows: Sequence[tuple[RowLocation, ImageFacts]],
    ) -> None:
        """Bring in rows of a generation that is recorded when all of them are (reconciliation)."""
        tally = self._tally(transaction, index_id)
        _store_rows(tally, transaction.connection, index_id, rows)
        tally.settle()

    def begin_move(self, transaction: Transaction, index_id: int, *, generation: int) -> None:
        """Bring the catalog to a generation that only moved rows; their locations follow."""
        connection = transaction.connection
        if generation <= _recorded_generation(connection, index_id):
            return
        is_known = select(moving_indexes).where(moving_indexes.c.index_id == index_id)
        if connection.execute(is_known).first() is None:
            connection.execute(insert(moving_indexes).values(index_id=index_id))
        connection.execute(
            update(indexes)
            .where(indexes.c.index_id == index_id)
            .values(generation=generation, updated_at=self._now(transaction))
        )

    def move(
        self,
        transaction: Transaction,
        index_id: int,
        moves: Sequence[tuple[RowLocation, RowLocation]],
    ) -> None:
        """Let what lies at each first location lie at the second."""
        values = [
            {
                "of_index": index_id,
                "from_segment": old.segment,
                "from_row": old.row,
                "to_segment": new.segment,
                "to_row": new.row,
            }
            for old, new in moves
        ]
        if values:
            transaction.connection.execute(MOVE, values)

    def place(
        self,
        transaction: Transaction,
        index_id: int,
        rows: Sequence[tuple[RowLocation, ImageFacts]],
        *,
        segments: Collection[int],
    ) -> None:
        """Let images lie in these rows whose location is in none of ``segments``."""
        connection = transaction.connection
        known = known_images(connection, index_id, [facts.image_path for _, facts in rows])
        places = []
        for location, facts in rows:
            row = known.get(facts.image_path)
            if row is not None and row.segment is not None and row.segment not in segments:
                place = {"to_segment": location.segment, "to_row": location.row}
                places.append({"known_key": row.image_key, **place})
        if places:
            connection.execute(PLACE, places)

    def end_move(self, transaction: Transaction, index_id: int) -> None:
        """Record that all locations are those of the generation."""
        transaction.connection.execute(
            delete(moving_indexes).where(moving_indexes.c.index_id == index_id)
        )

    def bring_in_moved(
        self,
        transaction: Transaction,
        index_id: int,
        rows: Sequence[tuple[RowLocation, ImageFacts]],
    ) -> None:
        """Bring in rows that a merge has moved, as ``bring_in`` does (reconciliation)."""
        connection = transaction.connection
        known = known_images(connection, index_id, [facts.image_path for _, facts in rows])
        places, new = [], {}
        for location, facts in rows:
            row = known.get(facts.image_path)
            if row is None or row.segment is None or row.content_hash != facts.content_hash:
                new[facts.image_path] = indexed_values(index_id, location, facts)
            else:
                place = {"to_segment": location.segment, "to_row": location.row}
                places.append({"known_key": row.image_key, **place})
        if places:
            connection.execute(PLACE, places)
        tally = self._tally(transaction, index_id)
        tally.store(new)
        tally.settle()

    def forget_lost(
        self, transaction: Transaction, index_id: int, *, segments: Collection[int]
    ) -> None:
        """Forget each image whose vector lies in none of these segments (reconciliation).

        Raises NotFound for an index that is not known.
        """
        connection = transaction.connection
        _recorded_generation(connection, index_id)
        tally = self._tally(transaction, index_id)
        rows = connection.execute(
            KNOWN.where(
                images.c.index_id == index_id,
                images.c.segment.is_not(None),
                images.c.segment.not_in(sorted(segments)),
            )
        )
        tally.remove(rows.all())
        tally.settle()

    def forget_images(
        self, transaction: Transaction, index_id: int, image_paths: Sequence[str]
    ) -> None:
        """Forget images that are gone, indexed or failed; unknown paths are passed over."""
        connection = transaction.connection
        _recorded_generation(connection, index_id)
        tally = self._tally(transaction, index_id)
        for paths in in_batches(image_paths, _BATCH):
            tally.remove(known_images(connection, index_id, paths).values())
            _forget_missing(connection, index_id, paths)
        tally.settle()

    def record_tombstones(
        self, transaction: Transaction, index_id: int, tombstones: Iterable[RowLocation]
    ) -> None:
        """Forget each image whose vector still lies in one of these rows (reconciliation).

        Those that have moved to another row stay. Raises NotFound for an unknown index.
        """
        connection = transaction.connection
        _recorded_generation(connection, index_id)
        tally = self._tally(transaction, index_id)
        for locations in in_batches(tombstones, MAX_PARAMETERS // 2):
            pairs = [(location.segment, location.row) for location in locations]
            rows = connection.execute(
                KNOWN.where(
                    images.c.index_id == index_id,
                    tuple_(images.c.segment, images.c.segment_row).in_(pairs),
                )
            )
            tally.remove(rows.all())
        tally.settle()

    def record_failures(
        self, transaction: Transaction, index_id: int, failures: Sequence[ImageFailure]
    ) -> None:
        """Record images that failed. An older version of it that is indexed stays findable.

        Such an image keeps the location, hash and size in pixels of that version, and gets the
        stamp of the file that failed. Raises NotFound for an index that is not known.
        """
        connection = transaction.connection
        _recorded_generation(connection, index_id)
        tally = self._tally(transaction, index_id)
        for batch in in_batches(failures, _BATCH):
            tally.store({failure.image_path: failed_values(index_id, failure) for failure in batch})
        tally.settle()

    def forget_index(self, transaction: Transaction, index_id: int) -> None:
        """Forget all images of an index; it is then as new, at generation 0."""
        connection = transaction.connection
        _recorded_generation(connection, index_id)
        connection.execute(delete(images).where(images.c.index_id == index_id))
        transaction.after_commit(self._sizes.forget)
        connection.execute(delete(missing_images).where(missing_images.c.index_id == index_id))
        self.end_move(transaction, index_id)
        connection.execute(
            update(indexes)
            .where(indexes.c.index_id == index_id)
            .values(
                generation=0,
                updated_at=None,
                indexed_images=0,
                failed_images=0,
                **changed_by(self._name),
            )
        )

    def _now(self, snapshot: Snapshot) -> float:
        return snapshot.now() if self._clock is None else self._clock()

    def _tally(self, transaction: Transaction, index_id: int) -> Tally:
        tally = Tally(transaction.connection, index_id, owner=self._name)
        transaction.after_commit(lambda: self._sizes.look_again(tally.touched))
        return tally


def _store_rows(
    tally: Tally,
    connection: Connection,
    index_id: int,
    rows: Sequence[tuple[RowLocation, ImageFacts]],
) -> None:
    values = {facts.image_path: indexed_values(index_id, place, facts) for place, facts in rows}
    tally.store(values)
    _forget_missing(connection, index_id, list(values))


def _range_below(directory: str) -> tuple[str, str]:
    """Return what every path below a directory comes after, and what it comes before."""
    prefix = directory.rstrip("/")
    return f"{prefix}/", f"{prefix}0"  # The character after "/".


def _missing_below(index_id: int, directory: str) -> tuple[Any, ...]:
    first, end = _range_below(directory)
    path = missing_images.c.image_path
    return missing_images.c.index_id == index_id, path > first, path < end


def _forget_missing(connection: Connection, index_id: int, paths: Sequence[str]) -> None:
    for some in in_batches(paths, MAX_PARAMETERS):
        connection.execute(FORGET_MISSING, by_path(index_id, some))


def _recorded_generation(connection: Connection, index_id: int) -> int:
    """Return the index's generation, which a write transaction keeps as it is."""
    query = select(indexes.c.generation).where(indexes.c.index_id == index_id)
    generation: int | None = connection.execute(query).scalar_one_or_none()
    if generation is None:
        raise NotFound(f"There is no index with the number {index_id}.")
    return generation


def _index_by_prefix(index_prefix: Path) -> Any:
    return INDEXES.where(indexes.c.index_prefix == str(index_prefix))
