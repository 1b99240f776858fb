"""Faiss files; the only module that imports Faiss.

There is one kind: all vectors of a segment side by side (``IndexFlatIP``).
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import CorruptIndex
from imagedex.segments.durable import HashingFile

# Faiss compares queries one by one, each with all vectors anew, until there are so many. From two
# on, a product of matrices is faster: 16 queries over 118,000 x 768 in 50 ms instead of 240.
faiss.cvar.distance_compute_blas_threshold = 2


class FaissFile:
    """The vectors of one segment, as Faiss stores them. Immutable."""

    def __init__(self, index: faiss.IndexFlatIP) -> None:
        self._index = index

    @classmethod
    def build(cls, vectors: NDArray[np.float32]) -> FaissFile:
        """Arrange these vectors: float32, shape (rows, dim)."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors))
        return cls(index)

    @classmethod
    def open(cls, path: Path, *, rows: int, dim: int) -> FaissFile:
        """Open a file; its vectors are mapped rather than read into memory.

        The file may be deleted while it is open. Raises CorruptIndex when it does not hold
        so many rows of this length.
        """
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:  # Faiss has no other kind of error.
            raise CorruptIndex(f"Faiss cannot open {str(path)!r}: {error}") from error
        if not isinstance(index, faiss.IndexFlatIP) or (index.ntotal, index.d) != (rows, dim):
            raise CorruptIndex(
                f"The file {str(path)!r} holds a {type(index).__name__} of {index.ntotal} x "
                f"{index.d}, expected IndexFlatIP of {rows} x {dim}."
            )
        return cls(index)

    def write_to(self, file: HashingFile) -> None:
        """Write it as a Faiss file."""
        writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
        faiss.write_index(self._index, writer)

    def best(
        self, queries: NDArray[np.float32], count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return inner products in float32, best first, and rows, both of shape (n, count).

        ``queries`` has shape (n, dim), ``count`` is at most the number of rows.
        """
        scores, rows = self._index.search(queries, count)
        return scores, rows

    def vectors(self) -> NDArray[np.float32]:
        """Return all vectors, float32 of shape (rows, dim): a read-only view, not a copy.

        It is valid for as long as this object lives.
        """
        rows, dim = self._index.ntotal, self._index.d
        if rows == 0:
            return np.empty((0, dim), dtype=np.float32)
        view: NDArray[np.float32] = faiss.rev_swig_ptr(self._index.get_xb(), rows * dim)
        view = view.reshape(rows, dim)
        view.flags.writeable = False
        return view
