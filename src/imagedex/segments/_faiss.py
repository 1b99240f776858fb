"""Search structures; the only module that imports Faiss.

There is one kind: all vectors of a segment side by side, compared one by one
(``IndexFlatIP``). ``SearchStructure.build`` is where another kind is chosen for large segments.
"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import CorruptIndex
from imagedex.segments.durable import HashingFile

# Beyond this many extra candidates a segment is searched by score rather than by count.
_SPARE_CANDIDATES = 16
_ROWS_PER_BLOCK = 512  # Beyond 1,000 Faiss would start threads.


class SearchStructure:
    """The vectors of one segment, arranged for searching. Safe to call from several threads."""

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @classmethod
    def build(cls, vectors: NDArray[np.float32]) -> SearchStructure:
        """Make the structure of these vectors: float32, shape (rows, dim)."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors))
        return cls(index)

    @classmethod
    def open(cls, path: Path, *, rows: int, dim: int) -> SearchStructure:
        """Open a file for searching; its vectors are mapped rather than read into memory.

        The file may be deleted while it is open. Raises CorruptIndex when it is not a
        structure of so many rows of this length.
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
        """Write the structure as a Faiss file."""
        writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
        faiss.write_index(self._index, writer)

    def candidates(
        self, vector: NDArray[np.float32], k: int, live: NDArray[np.uint8] | None
    ) -> NDArray[np.int64]:
        """Return rows among which the best ``k``, and all that equal the last of them, are.

        ``live`` is a bitmap of the rows that count (``pack_live``); None means that all do.
        """
        query = vector[np.newaxis]
        wanted = min(k + _SPARE_CANDIDATES, self._index.ntotal)
        # Faiss 1.15 splits a search without a selector among threads. With one query that took
        # four times as long as this on two busy cores (60 ms for 16 at 100,000 x 384).
        selector = _all_or(live)
        # The keyword is made by Faiss when it is imported, where no type checker sees it.
        parameters = faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]
        scores, rows = self._index.search(query, wanted, params=parameters)
        found: NDArray[np.int64] = rows[0][rows[0] >= 0]
        if len(found) < wanted or wanted == self._index.ntotal:
            return found  # All rows that count.
        # Scores come rounded differently from place to place. The error of each is at most
        # dim * 2**-24 times both lengths (Higham, "Accuracy and Stability of Numerical
        # Algorithms", 2002, 3.1), so what may equal the k-th lies above this floor.
        dim = self._index.d
        error = (dim + 8) * 2.0**-24 * float(np.linalg.norm(vector)) * 1.01
        floor = float(scores[0, k - 1]) - 2 * error
        if scores[0, -1] < floor:
            return found
        _, _, rows = self._index.range_search(query, floor, params=parameters)
        return np.asarray(rows, dtype=np.int64)

    def scores(self, vector: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the inner products of these rows with ``vector``, float32, in their order.

        Computed in float64 and rounded once, each row by itself: equal vectors have equal
        scores wherever they lie.
        """
        query = vector.astype(np.float64)
        scores = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), _ROWS_PER_BLOCK):  # Bounds the memory.
            block = slice(start, start + _ROWS_PER_BLOCK)
            vectors = self._index.reconstruct_batch(rows[block]).astype(np.float64)
            scores[block] = (vectors * query).sum(axis=1)
        return scores


def pack_live(rows: int, gone: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return a bitmap of so many rows in which those of ``gone`` do not count."""
    live = np.ones(rows, dtype=np.bool_)
    live[gone] = False
    return np.packbits(live, bitorder="little")


def _all_or(live: NDArray[np.uint8] | None) -> faiss.IDSelector:
    if live is None:
        return faiss.IDSelectorAll()
    # Faiss describes itself as before it wrapped the function for arrays.
    return faiss.IDSelectorBitmap(live)  # type: ignore[call-arg, arg-type]
