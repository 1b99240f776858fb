"""The Faiss file of an old index: all vectors side by side, searched and written by Faiss."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import InvalidRequest
from imagedex.legacy.flat_file import FlatFile
from imagedex.segments.durable import HashingFile, storage_errors


class FlatVectors:
    """The vectors of a flat Faiss index, by row of the Parquet file. Mapped, not read."""

    def __init__(self, flat: FlatFile) -> None:
        self._is_inner_product = flat.is_inner_product
        # Where each row's vector stands; None for the same order.
        self._places = None if flat.ids is None else _places(flat.file, flat.ids)
        self._ids = flat.ids
        shape = (flat.rows, flat.dim)
        with storage_errors("map", flat.file):
            # An empty map cannot be made.
            self._vectors: NDArray[np.float32] = (
                np.memmap(flat.file, np.dtype("<f4"), "r", flat.offset, shape)
                if flat.rows
                else np.empty(shape, np.float32)
            )
        self.kind = flat.kind
        self.rows = flat.rows
        self.dim = flat.dim

    @classmethod
    def open(cls, file: Path) -> FlatVectors:
        """Open a Faiss file. Raises InvalidRequest, StorageError; see ``FlatFile.read``."""
        return cls(FlatFile.read(file))

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return a copy of the vectors of these rows, in their order: float32, (len(rows), dim)."""
        places = rows if self._places is None else self._places[rows]
        return np.array(self._vectors[places], dtype=np.float32)

    def best(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Return for each query its best rows, best first, as the old scripts' search gives them.

        ``queries`` is float32 of shape (n, dim), ``count`` at most the number of rows; the
        result has shape (n, count), with -1 where no further row has a score.
        """
        metric = faiss.METRIC_INNER_PRODUCT if self._is_inner_product else faiss.METRIC_L2
        found: NDArray[np.int64] = faiss.knn(queries, self._vectors, count, metric=metric)[1]
        if self._ids is None:
            return found
        return np.where(found >= 0, self._ids[found], -1)


def write_flat(file: HashingFile, blocks: Iterable[NDArray[np.float32]], *, dim: int) -> None:
    """Write vectors as ``IndexFlatIP``, in the order in which they come."""
    index = faiss.IndexFlatIP(dim)
    for block in blocks:
        index.add(np.ascontiguousarray(block))
    faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]


def _places(file: Path, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the vector with each id stands, ids being the rows of the Parquet file."""
    places = np.argsort(ids, kind="stable")
    if not np.array_equal(ids[places], np.arange(len(ids))):
        raise InvalidRequest(
            f"The ids in {str(file)!r} are not the row numbers 0 to {len(ids) - 1}, so nothing "
            "says which vector belongs to which path. If the Parquet file has the vectors, move "
            "this file away and import that alone."
        )
    return places
