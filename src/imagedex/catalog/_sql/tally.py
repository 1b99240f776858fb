"""Changes of images that keep the totals true."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, update

from imagedex.catalog._sql.batches import MAX_PARAMETERS, in_batches
from imagedex.catalog._sql.statements import KNOWN_BY_PATH, AnyRow, by_path
from imagedex.catalog.interfaces import ImageState
from imagedex.database.dialects import insert_many
from imagedex.database.tables import images, indexes


class Tally:
    """Changes images of one index and keeps its totals true."""

    def __init__(self, connection: Connection, index_id: int, *, owner: str) -> None:
        """Take the connection of a transaction, and whose the changes are; ``settle`` ends it."""
        self._connection = connection
        self._owner = owner
        self._index_id = index_id
        self._indexed = 0  # By how much the totals change.
        self._failed = 0
        self.touched: list[int] = []  # Keys of images that were changed or removed.

    def remove(self, rows: Iterable[AnyRow]) -> None:
        """Delete rows of ``KNOWN``."""
        keys = []
        for row in rows:
            self._count(row.state, row.segment, -1)
            keys.append({"known_key": row.image_key})
            self.touched.append(row.image_key)
        if keys:
            self._connection.execute(
                delete(images).where(images.c.image_key == bindparam("known_key")), keys
            )

    def store(self, values_by_path: dict[str, dict[str, Any]]) -> None:
        """Insert or update images. All values have the same columns."""
        known = known_images(self._connection, self._index_id, list(values_by_path))
        new, changed = [], []
        for image_path, values in values_by_path.items():
            row = known.get(image_path)
            if row is None:
                new.append(values)
                self._count(values["state"], values.get("segment"), +1)
            else:
                changed.append({"known_key": row.image_key, **values})
                self.touched.append(row.image_key)
                self._count(row.state, row.segment, -1)
                self._count(values["state"], values.get("segment", row.segment), +1)
        insert_many(self._connection, images, new)
        if changed:
            columns: dict[str, Any] = {
                name: bindparam(name) for name in changed[0] if name != "known_key"
            }
            self._connection.execute(
                update(images).where(images.c.image_key == bindparam("known_key")).values(columns),
                changed,
            )

    def settle(self, **also: Any) -> None:
        """Write the totals, and other values of the index."""
        if self.touched:
            also |= changed_by(self._owner)
        self._connection.execute(
            update(indexes)
            .where(indexes.c.index_id == self._index_id)
            .values(
                indexed_images=indexes.c.indexed_images + self._indexed,
                failed_images=indexes.c.failed_images + self._failed,
                **also,
            )
        )

    def _count(self, state: str, segment: int | None, by: int) -> None:
        self._indexed += by * (segment is not None)
        self._failed += by * (state == ImageState.FAILED)


def changed_by(owner: str) -> dict[str, Any]:
    """Return the values that an index gets when images which it had are changed or deleted."""
    is_next = indexes.c.changed_by == owner
    return {
        "changes": indexes.c.changes + 1,
        "changed_by": owner,
        "changes_of_others": case((is_next, indexes.c.changes_of_others), else_=indexes.c.changes),
    }


def known_images(connection: Connection, index_id: int, paths: Sequence[str]) -> dict[str, AnyRow]:
    """Return the rows of those paths that are known, by path."""
    return {
        row.image_path: row
        for some in in_batches(paths, MAX_PARAMETERS)
        for row in connection.execute(KNOWN_BY_PATH, by_path(index_id, some))
    }
