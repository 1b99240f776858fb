"""Which images have files of some size, in memory.

A scan looks up the size of each new file, since only a file of the same size can be a copy of an
image that is indexed. The sizes of photos follow no order: in an index of the database a thousand
new ones touched nearly a thousand pages, each written twice. Here they take 24 bytes an image, and
a million are read in two seconds when the first is asked for.

What is found may be out of date, as after a change by another process. So whoever asks looks the
images up, and what is missed costs an image to be embedded once more.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from imagedex.catalog._sql.batches import MAX_PARAMETERS, in_batches
from imagedex.core.images import FileStamp

_KEYS_AT_ONCE = 50_000
_LEAST_MERGED = 20_000
_RECENT_SHARE = 0.1  # Of the others; then they are merged.

# A column at a time, which the driver reads without keeping other threads waiting. The sign before
# the index keeps SQLite from going by that in the place of the keys.
_COLUMNS = """
SELECT json_group_array(image_key), json_group_array(size), json_group_array(ifnull(mtime_ns, 0))
FROM images WHERE +index_id = ? AND size IS NOT NULL AND
"""
_IN_RANGE = _COLUMNS + "image_key > ? AND image_key <= ?"


class ContentSizes:
    """The sizes of the images of all indexes. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._columns: dict[int, _SizeColumn] = {}

    def keys_like(
        self, connection: Connection, index_id: int, stamp: FileStamp, *, most: int
    ) -> list[int]:
        """Return keys of images whose files may have the size; those of the mtime come first.

        At most twice ``most``. The connection reads what is committed.
        """
        with self._lock:
            column = self._columns.setdefault(index_id, _SizeColumn(index_id))
            column.catch_up(connection)
            return column.keys_like(stamp, most)

    def look_again(self, index_id: int, keys: Iterable[int]) -> None:
        """Know that these images are changed or gone. Call it when that is committed."""
        with self._lock:
            column = self._columns.get(index_id)
            if column is not None:
                column.look_again(keys)

    def forget(self, index_id: int) -> None:
        """Know that all images of an index are gone."""
        with self._lock:
            self._columns.pop(index_id, None)


@dataclass(frozen=True, slots=True)
class _Block:
    """Images by rising size, those of a size by rising mtime. All of shape (n,)."""

    sizes: NDArray[np.int64]
    mtimes: NDArray[np.int64]
    keys: NDArray[np.int64]

    @classmethod
    def of_rows(cls, answers: Iterable[Any]) -> _Block:
        """Take what ``_COLUMNS`` gives, each answer a row of JSON; in no order yet."""
        columns: list[list[NDArray[np.int64]]] = [[], [], []]
        for answer in answers:
            for pieces, text in zip(columns, answer.fetchone(), strict=True):
                pieces.append(np.array(json.loads(text), dtype=np.int64))
        keys, sizes, mtimes = (np.concatenate(pieces) for pieces in columns)
        return cls(sizes, mtimes, keys)

    def merged(self, other: _Block) -> _Block:
        """Return both, of an image that is in both what ``other`` has of it."""
        left = ~np.isin(self.keys, other.keys)
        sizes = np.concatenate([self.sizes[left], other.sizes])
        mtimes = np.concatenate([self.mtimes[left], other.mtimes])
        keys = np.concatenate([self.keys[left], other.keys])
        order = np.lexsort((mtimes, sizes))
        return _Block(sizes[order], mtimes[order], keys[order])

    def of(self, stamp: FileStamp, most: int) -> tuple[list[int], list[int]]:
        """Return keys of this size and mtime, and keys of this size; at most so many of each."""
        first, last = np.searchsorted(self.sizes, [stamp.size, stamp.size + 1])
        mtimes = self.mtimes[first:last]
        same, other = first + np.searchsorted(mtimes, [stamp.mtime_ns, stamp.mtime_ns + 1])
        exact = self.keys[same : min(other, same + most)]
        return exact.tolist(), self.keys[first : min(last, first + most)].tolist()


_EMPTY = _Block(*(np.empty(0, dtype=np.int64) for _ in range(3)))


class _SizeColumn:
    """The sizes of one index's images. The caller has a lock."""

    def __init__(self, index_id: int) -> None:
        self._index_id = index_id
        self._settled = _EMPTY
        self._recent = _EMPTY
        self._last_key = 0
        self._again: set[int] = set()

    def look_again(self, keys: Iterable[int]) -> None:
        self._again.update(keys)

    def catch_up(self, connection: Connection) -> None:
        """Read what came since the last time, and what is to be read again."""
        # Straight to the driver: through SQLAlchemy it takes as long again, for each new file.
        driver: Any = connection.connection.driver_connection
        highest = driver.execute("SELECT max(image_key) FROM images").fetchone()[0] or 0
        rows = [
            driver.execute(_IN_RANGE, (self._index_id, first, min(highest, first + _KEYS_AT_ONCE)))
            for first in range(self._last_key, highest, _KEYS_AT_ONCE)
        ]
        for keys in in_batches(self._again, MAX_PARAMETERS):
            marks = ",".join("?" * len(keys))
            rows.append(
                driver.execute(f"{_COLUMNS} image_key IN ({marks})", (self._index_id, *keys))
            )
        # The key of the last image may be given anew when that is deleted.
        self._last_key = highest
        self._again.clear()
        if rows:
            self._recent = self._recent.merged(_Block.of_rows(rows))
        if len(self._recent.keys) > max(_LEAST_MERGED, _RECENT_SHARE * len(self._settled.keys)):
            self._settled = self._settled.merged(self._recent)
            self._recent = _EMPTY

    def keys_like(self, stamp: FileStamp, most: int) -> list[int]:
        found = [block.of(stamp, most) for block in (self._settled, self._recent)]
        exact = [key for some, _ in found for key in some]
        return list(dict.fromkeys(exact + [key for _, some in found for key in some]))[: 2 * most]
