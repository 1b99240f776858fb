"""Inverted lists of quantised vectors (Faiss): what finds candidates in large segments.

Vectors are grouped around centroids (IVF; Jégou et al., "Product Quantization for Nearest Neighbor
Search", 2011) and kept with one bit a dimension (RaBitQ; Gao and Long, "RaBitQ: Quantizing
High-Dimensional Vectors with a Theoretical Error Bound for Approximate Nearest Neighbor Search",
SIGMOD 2024). A search reads the lists whose centroids are nearest to the query.
"""

from __future__ import annotations

import math
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import CorruptIndex
from imagedex.segments._faiss import FaissFile, cores, faiss_threads, threads_for
from imagedex.segments.durable import HashingFile

_QUERY_BITS = 8  # Of a query's numbers: seven times as fast as float32 at the same recall.
_TRAINING_ROWS_PER_LIST = 40
_TRAINING_ROUNDS = 8


class IvfFile:
    """Inverted lists of one segment. Immutable; safe to call from several threads."""

    def __init__(self, index: faiss.IndexIVFRaBitQ) -> None:
        self._index = index

    @classmethod
    def build(cls, flat: FaissFile) -> IvfFile:
        """Arrange the vectors of a file, which are of unit length.

        Leaves one core to queries, where there is more than one.
        """
        rows, dim = flat.vectors().shape
        lists = lists_for(rows)
        centroids = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFRaBitQ(centroids, dim, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.spherical = True
        index.cp.niter = _TRAINING_ROUNDS
        index.cp.max_points_per_centroid = _TRAINING_ROWS_PER_LIST
        index.cp.min_points_per_centroid = 1  # Only of a warning.
        chosen = np.random.default_rng(0).permutation(rows)[: lists * _TRAINING_ROWS_PER_LIST]
        with faiss_threads(max(1, cores() - 1)):
            index.train(flat.take(np.sort(chosen)))
            for _, block in flat.blocks():
                index.add(block)
        return cls(index)

    @classmethod
    def open(cls, path: Path, *, rows: int, dim: int) -> IvfFile:
        """Open a file; its lists are mapped rather than read into memory.

        The file may be deleted while it is open. Raises CorruptIndex when it does not hold so many
        rows of this length.
        """
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:  # Faiss has no other kind of error.
            raise CorruptIndex(f"Faiss cannot open {str(path)!r}: {error}") from error
        if not isinstance(index, faiss.IndexIVFRaBitQ) or (index.ntotal, index.d) != (rows, dim):
            raise CorruptIndex(
                f"The file {str(path)!r} holds a {type(index).__name__} of {index.ntotal} x "
                f"{index.d}, expected IndexIVFRaBitQ of {rows} x {dim}."
            )
        return cls(index)

    @property
    def lists(self) -> int:
        """How many lists there are."""
        lists: int = self._index.nlist
        return lists

    def write_to(self, file: HashingFile) -> None:
        """Write it as a Faiss file."""
        writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
        faiss.write_index(self._index, writer)

    def candidates(
        self,
        queries: NDArray[np.float32],
        count: int,
        *,
        probes: int,
        among: RowSet | None = None,
    ) -> NDArray[np.int64]:
        """Return the rows that seem nearest: int64, shape (n, count), the best first.

        ``queries`` has shape (n, dim). ``probes`` lists are read for each. With ``among`` only its
        rows are looked at. Where fewer are found, the rest is -1.
        """
        parameters = faiss.IVFRaBitQSearchParameters()
        parameters.nprobe = min(probes, self.lists)
        parameters.qb = _QUERY_BITS
        if among is not None:
            parameters.sel = among.selector
        rows: NDArray[np.int64]
        with threads_for(len(queries)):
            _, rows = self._index.search(queries, count, params=parameters)
        return rows


class RowSet:
    """Some rows of a segment, by a bit each. Immutable."""

    def __init__(self, rows: int, *, without: NDArray[np.int64]) -> None:
        """Take all rows but those in ``without``."""
        marked = np.ones(rows, dtype=bool)
        marked[without] = False
        self._bits = np.packbits(marked, bitorder="little")  # Faiss looks at its memory.
        self.selector = faiss.IDSelectorBitmap(self._bits)  # type: ignore[call-arg, arg-type]


def lists_for(rows: int) -> int:
    """Return how many lists so many rows are divided into: some of them are read for a query."""
    return max(1, round(4 * math.sqrt(rows)))
