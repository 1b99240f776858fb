"""Inverted lists of quantised vectors (Faiss): what finds candidates in large segments.

Vectors are grouped around centroids (IVF; Jégou et al., "Product Quantization for Nearest Neighbor
Search", 2011) and kept with four bits a dimension (RaBitQ; Gao et al., "Practical and
Asymptotically Optimal Quantization of High-Dimensional Vectors in Euclidean Space for Approximate
Nearest Neighbor Search", SIGMOD 2025), of which the first one rules most of them out. A search
reads the lists whose centroids are nearest to the query.
"""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from imagedex.core.errors import CorruptIndex
from imagedex.segments._faiss import FaissFile, cores, faiss_threads, threads_for
from imagedex.segments.durable import HashingFile

# With one, hundreds of candidates are compared for ten results, and of a million rows that resemble
# each other the best are not among a thousand.
_BITS = 4
_QUERY_BITS = 8  # Of a query's numbers: seven times as fast as float32 at the same recall.
_TRAINING_ROWS_PER_LIST = 40
_TRAINING_ROUNDS = 8
_FAIR_SHARE = 0.5  # Of what the nearest lists would hold, were the rows spread over all.


class IvfFile:
    """Inverted lists of one segment. Immutable; safe to call from several threads."""

    def __init__(
        self, index: faiss.IndexIVFRaBitQ, centroids: faiss.IndexScalarQuantizer | None = None
    ) -> None:
        self._index = index
        self._centroids = centroids  # Kept, since the index only points to it.
        self._lock = threading.Lock()
        self._lists_of_rows: NDArray[np.int32] | None = None

    @classmethod
    def build(cls, flat: FaissFile) -> IvfFile:
        """Arrange the vectors of a file, which are of unit length.

        Leaves one core to queries, where there is more than one.
        """
        rows, dim = flat.vectors().shape
        lists = lists_for(rows)
        centroids = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFRaBitQ(centroids, dim, lists, faiss.METRIC_INNER_PRODUCT, True, _BITS)
        index.cp.spherical = True
        index.cp.niter = _TRAINING_ROUNDS
        index.cp.max_points_per_centroid = _TRAINING_ROWS_PER_LIST
        index.cp.min_points_per_centroid = 1  # Only of a warning.
        chosen = np.random.default_rng(0).permutation(rows)[: lists * _TRAINING_ROWS_PER_LIST]
        with faiss_threads(max(1, cores() - 1)):
            index.train(flat.take(np.sort(chosen)))
            for _, block in flat.blocks():
                index.add(block)
        # Each query is compared with all centroids, which memory gives no faster than this.
        halves = faiss.IndexScalarQuantizer(
            dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        halves.add(centroids.reconstruct_n(0, lists))
        index.quantizer = halves
        return cls(index, halves)

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

    def candidates_among(
        self,
        queries: NDArray[np.float32],
        count: int,
        *,
        among: ListedRows,
        depth: int,
    ) -> NDArray[np.int64]:
        """Return the rows of ``among`` that seem nearest, as ``candidates`` does.

        For each query lists are read from the nearest on, those without such rows left out,
        until they hold as many of them as the ``depth`` nearest lists hold of all rows. Where
        these nearest lists hold few of them, what is nearest to the query is not allowed, and
        all others are about equally far: then all lists that hold any are read.
        """
        scores, lists = self._index.quantizer.search(queries, self.lists)
        chosen = [among.lists_to_read(order, depth) for order in lists]
        probes = max(1, max(len(places) for places in chosen))
        read = np.full((len(queries), probes), -1, dtype=np.int64)  # Faiss passes over these.
        read_scores = np.zeros((len(queries), probes), dtype=np.float32)
        for i, places in enumerate(chosen):
            read[i, : len(places)] = lists[i, places]
            read_scores[i, : len(places)] = scores[i, places]
        parameters = faiss.IVFRaBitQSearchParameters()
        parameters.nprobe = probes
        parameters.qb = _QUERY_BITS
        parameters.sel = among.selector
        queries = np.ascontiguousarray(queries)
        found_scores = np.empty((len(queries), count), dtype=np.float32)
        rows = np.empty((len(queries), count), dtype=np.int64)
        # As ``search_preassigned``, which takes no parameters from Python.
        self._index.search_preassigned_c(  # type: ignore[attr-defined]
            len(queries),
            faiss.swig_ptr(queries),
            count,
            faiss.swig_ptr(read),
            faiss.swig_ptr(read_scores),
            faiss.swig_ptr(found_scores),
            faiss.swig_ptr(rows),
            False,
            parameters,
        )
        return rows

    def listed(self, bits: NDArray[np.uint8], rows: NDArray[np.int64]) -> ListedRows:
        """Prepare some rows for ``candidates_among``: a bit for each row, and their numbers."""
        lists_of_rows = self._list_of_each_row()
        counts = np.bincount(lists_of_rows[rows], minlength=self.lists)
        return ListedRows(bits, counts, np.bincount(lists_of_rows, minlength=self.lists))

    def _list_of_each_row(self) -> NDArray[np.int32]:
        with self._lock:
            if self._lists_of_rows is None:
                self._lists_of_rows = np.zeros(self._index.ntotal, dtype=np.int32)
                lists: Any = self._index.invlists
                for number in range(self.lists):
                    size = lists.list_size(number)
                    if size:
                        ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
                        self._lists_of_rows[ids] = number
            return self._lists_of_rows


class RowSet:
    """Some rows of a segment, by a bit each. Immutable."""

    def __init__(self, rows: int, *, without: NDArray[np.int64]) -> None:
        """Take all rows but those in ``without``."""
        marked = np.ones(rows, dtype=bool)
        marked[without] = False
        self._bits = np.packbits(marked, bitorder="little")  # Faiss looks at its memory.
        self.selector = faiss.IDSelectorBitmap(self._bits)  # type: ignore[call-arg, arg-type]


class ListedRows:
    """Some rows of a segment, by a bit each, and how many of them each list has. Immutable."""

    def __init__(
        self, bits: NDArray[np.uint8], counts: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> None:
        """Take a bit for each row, and of each list how many it has, and how many rows in all."""
        self._counts = counts
        self._sizes = sizes
        self._share = counts.sum() / max(1, sizes.sum())
        self._bits = bits  # Faiss looks at its memory.
        self.selector = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]

    def lists_to_read(self, order: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        """Return places in ``order``, which has all lists, the nearest to a query first."""
        counts = self._counts[order]
        filled = np.flatnonzero(counts)
        enough = self._sizes[order[:depth]].sum()
        if counts[:depth].sum() < _FAIR_SHARE * self._share * enough:
            return filled
        last = int(np.searchsorted(np.cumsum(counts[filled]), enough))
        return filled[: last + 1]


def lists_for(rows: int) -> int:
    """Return how many lists so many rows are divided into: some of them are read for a query."""
    return max(1, round(4 * math.sqrt(rows)))
