"""Which images have files of some size, in memory.

A scan looks up the size of each new file, since only a file of the same size can be a copy of an
image that is indexed. The sizes of photos follow no order: in an index of the database a thousand
new ones touched nearly a thousand pages, each written twice. Here they take 24 bytes an image, and
a million are read in two seconds when the first is asked for (decision 19).

Another process on the database adds images, which are read when they are asked for, as this one's
own are. When it has changed or deleted some that were there before, all sizes are read anew: nobody
says which they were. The table of indexes says how many such changes are those of others.

What is found may be out of date by what changes at this moment. So whoever asks looks the images
up, and what is missed costs an image to be embedded once more.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from imagedex.catalog._sql.batches import MAX_PARAMETERS, in_batches
from imagedex.core.images import FileStamp
from imagedex.database.dialects import for_drivers, one_row

_KEYS_AT_ONCE = 50_000
_LEAST_MERGED = 20_000
_RECENT_SHARE = 0.1  # Of the others; then they are merged.

# A column at a time, which the driver reads without keeping other threads waiting. The sign before
# the index keeps SQLite from going by that in the place of the keys.
_COLUMNS = """
SELECT json_array(image_key), json_array(size), json_array(mtime)
FROM (
  SELECT image_key, size, coalesce(mtime_ns, 0) AS mtime FROM images
  WHERE +index_id = ? AND state = 'indexed' AND size IS NOT NULL AND {}
) AS columns
"""
_IN_RANGE = for_drivers(_COLUMNS.format("image_key > ? AND image_key <= ?"))
_HOW_FAR = for_drivers("""
SELECT (SELECT max(image_key) FROM images),
  sum(CASE WHEN changed_by = ? THEN changes_of_others ELSE changes END)
FROM indexes
""")


class ContentSizes:
    """The sizes of the indexed images of all indexes. Safe to use from several threads."""

    def __init__(self, owner: str) -> None:
        """Take the name under which the changes stand that are told by ``look_again``."""
        self._owner = owner
        self._lock = threading.Lock()  # Never held while something is read.
        self._columns: dict[int, _SizeColumn] = {}

    def keys_like(
        self, connection: Connection, index_id: int, stamp: FileStamp, *, most: int
    ) -> list[int]:
        """Return keys of images whose files may have the size; those of the mtime come first.

        At most twice ``most``. The connection has read nothing yet in its transaction.
        """
        with self._lock:
            column = self._columns.setdefault(index_id, _SizeColumn(index_id, self._owner))
        return column.keys_like(connection, stamp, most)

    def look_again(self, keys: Collection[int]) -> None:
        """Know that these images are changed or gone. Call it when that is committed."""
        if not keys:
            return
        with self._lock:
            # The key of an image of one index may be given to one of another.
            for column in self._columns.values():
                column.look_again(keys)

    def forget(self) -> None:
        """Know that all images of an index are gone, whose keys others may be given."""
        with self._lock:
            self._columns.clear()


@dataclass(frozen=True, slots=True)
class _Block:
    """Images by rising size, those of a size by rising mtime. All of shape (n,)."""

    sizes: NDArray[np.int64]
    mtimes: NDArray[np.int64]
    keys: NDArray[np.int64]

    @classmethod
    def of(cls, columns: Iterable[Any]) -> _Block:
        """Take lists of JSON as ``_COLUMNS`` gives them, in no order."""
        keys, sizes, mtimes = (np.array(json.loads(text), dtype=np.int64) for text in columns)
        return _EMPTY.with_all([cls(sizes, mtimes, keys)])

    def with_all(self, others: Iterable[_Block]) -> _Block:
        """Return the images of this and of all others."""
        blocks = [self, *others]
        sizes = np.concatenate([block.sizes for block in blocks])
        mtimes = np.concatenate([block.mtimes for block in blocks])
        order = np.lexsort((mtimes, sizes))
        keys = np.concatenate([block.keys for block in blocks])
        return _Block(sizes[order], mtimes[order], keys[order])

    def without(self, keys: Collection[int]) -> _Block:
        """Return all but some images."""
        left = ~np.isin(self.keys, np.fromiter(keys, dtype=np.int64, count=len(keys)))
        return self if left.all() else _Block(self.sizes[left], self.mtimes[left], self.keys[left])

    def like(self, stamp: FileStamp, most: int) -> tuple[list[int], list[int]]:
        """Return keys of this size and mtime, and keys of this size; at most so many of each."""
        first, last = np.searchsorted(self.sizes, [stamp.size, stamp.size + 1])
        mtimes = self.mtimes[first:last]
        same, other = first + np.searchsorted(mtimes, [stamp.mtime_ns, stamp.mtime_ns + 1])
        exact = self.keys[same : min(other, same + most)]
        return exact.tolist(), self.keys[first : min(last, first + most)].tolist()


_EMPTY = _Block(*(np.empty(0, dtype=np.int64) for _ in range(3)))


class _SizeColumn:
    """The sizes of one index's images."""

    def __init__(self, index_id: int, owner: str) -> None:
        self._index_id = index_id
        self._owner = owner
        self._reading = threading.Lock()
        self._settled = _EMPTY
        self._recent = _EMPTY
        self._last_key = 0
        self._changes_of_others: int | None = None
        self._again: set[int] = set()
        self._again_lock = threading.Lock()

    def look_again(self, keys: Collection[int]) -> None:
        with self._again_lock:
            self._again.update(keys)

    def keys_like(self, connection: Connection, stamp: FileStamp, most: int) -> list[int]:
        with self._reading:
            self._catch_up(connection)
            found = [block.like(stamp, most) for block in (self._settled, self._recent)]
        exact = [key for some, _ in found for key in some]
        return list(dict.fromkeys(exact + [key for _, some in found for key in some]))[: 2 * most]

    def _catch_up(self, connection: Connection) -> None:
        """Read what came since the last time, and what is to be read again."""
        # Before anything is read: so what is read is at least as new as these changes.
        with self._again_lock:
            again, self._again = self._again, set()
        try:
            self._read_all(connection, again)
        except BaseException:
            self.look_again(again)
            raise

    def _read_all(self, connection: Connection, again: Collection[int]) -> None:
        highest, changes = one_row(connection, _HOW_FAR, (self._owner,))
        highest = highest or 0
        if changes != self._changes_of_others:
            self._settled = self._recent = _EMPTY
            self._last_key = 0
            self._changes_of_others = changes
        if highest == self._last_key and not again:
            return
        new = [_Block.of(columns) for columns in self._read(connection, highest, again)]
        recent = self._recent.without(again).with_all(new)
        self._settled = self._settled.without(again)
        if len(recent.keys) > max(_LEAST_MERGED, _RECENT_SHARE * len(self._settled.keys)):
            self._settled, recent = self._settled.with_all([recent]), _EMPTY
        self._recent = recent
        # The key of the last image may be given anew when that is deleted.
        self._last_key = highest

    def _read(
        self, connection: Connection, highest: int, again: Collection[int]
    ) -> Iterator[Sequence[str]]:
        for first in range(self._last_key, highest, _KEYS_AT_ONCE):
            values = (self._index_id, first, min(highest, first + _KEYS_AT_ONCE))
            yield one_row(connection, _IN_RANGE, values)
        # What is above the last key was read just now.
        for keys in in_batches((key for key in again if key <= self._last_key), MAX_PARAMETERS):
            marks = ",".join("?" * len(keys))
            among = for_drivers(_COLUMNS.format(f"image_key IN ({marks})"))
            yield one_row(connection, among, (self._index_id, *keys))
