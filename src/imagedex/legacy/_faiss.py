"""The Faiss file of an old index: all vectors side by side, in the order of the Parquet's rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import InvalidRequest
from imagedex.segments.durable import HashingFile, storage_errors

_TAKEN = "IndexFlatIP or IndexFlatL2, or an IndexIDMap over one of them"


class FlatVectors:
    """The vectors of a flat Faiss index, by row of the Parquet file. Mapped, not read."""

    def __init__(
        self, index: Any, kind: str, *, owner: Any, places: NDArray[np.int64] | None
    ) -> None:
        self._owner = owner  # Kept, since it owns the memory below.
        self._places = places  # Where each row's vector stands; None for the same order.
        self.kind = kind  # As Faiss calls it.
        rows, dim = index.ntotal, index.d
        view = faiss.rev_swig_ptr(index.get_xb(), rows * dim) if rows else np.empty(0, np.float32)
        self._vectors: NDArray[np.float32] = view.reshape(rows, dim)
        self._vectors.flags.writeable = False

    @classmethod
    def open(cls, file: Path) -> FlatVectors:
        """Open a Faiss file.

        Raises InvalidRequest for what Faiss cannot read and for other kinds of index, which do
        not hold the vectors as they were; StorageError when the file cannot be read.
        """
        with storage_errors("read", file), open(file, "rb"):
            pass  # Faiss gives one kind of error for all faults; this one has a remedy.
        try:
            index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:  # Faiss has no other kind of error.
            raise InvalidRequest(
                f"Faiss cannot read {str(file)!r} ({_first_line(error)}); restore it from a copy, "
                "or move it away if the Parquet file has the vectors."
            ) from error
        flat, ids = index, None
        if isinstance(index, faiss.IndexIDMap):
            flat = faiss.downcast_index(index.index)
            ids = faiss.vector_to_array(index.id_map).astype(np.int64)
        if type(flat) not in (faiss.IndexFlat, faiss.IndexFlatIP, faiss.IndexFlatL2) or (
            flat.metric_type not in (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2)
        ):
            raise InvalidRequest(
                f"{str(file)!r} holds a {type(flat).__name__}, expected {_TAKEN}: other kinds do "
                "not hold the vectors as they were. If the Parquet file has them, move this one "
                "away and import that alone."
            )
        kind = type(flat).__name__
        if ids is None:
            return cls(flat, kind, owner=index, places=None)
        name = f"{type(index).__name__} of {kind}"
        return cls(flat, name, owner=index, places=_places(file, ids))

    @property
    def rows(self) -> int:
        """The number of vectors."""
        return len(self._vectors)

    @property
    def dim(self) -> int:
        """Their length."""
        return int(self._vectors.shape[1])

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return a copy of the vectors of these rows, in their order: float32, (len(rows), dim)."""
        places = rows if self._places is None else self._places[rows]
        return self._vectors[places]

    def best(self, queries: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Return for each query its best rows, best first, as the old scripts' search gives them.

        ``queries`` is float32 of shape (n, dim), ``count`` at most the number of rows; the
        result has shape (n, count).
        """
        rows: NDArray[np.int64] = self._owner.search(np.ascontiguousarray(queries), count)[1]
        return rows


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


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
