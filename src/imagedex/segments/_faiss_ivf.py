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
from dataclasses import dataclass
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
_GLANCE = 16  # Lists.
_CODES_PER_GLANCE = 4.0  # How many times as many are looked up, to be compared better.
_TRAINING_ROWS_PER_LIST = 40
_TRAINING_ROUNDS = 8
# In shares of what a list holds on average: which lists are divided, and into what.
_LARGEST_LIST = 1.6
_PIECE_OF_LIST = 0.7
_FAIR_SHARE = 0.5  # Of what the nearest lists would hold, were the rows spread over all.


@dataclass(frozen=True, slots=True)
class NearLists:
    """The lists whose centroids are nearest to each of some queries, the nearest first."""

    scores: NDArray[np.float32]  # Inner products of queries and centroids, shape (n, count).
    numbers: NDArray[np.int64]  # Of the same shape; -1 for a list that is not to be read.

    def within(self, *, probes: int, margin: float) -> NearLists:
        """Return at most ``probes`` of each, which lie at most ``margin`` behind the nearest.

        So a query reads as many lists as are about equally near to it (query-aware pruning; Chen
        et al., "SPANN: Highly-efficient Billion-scale Approximate Nearest Neighbor Search",
        NeurIPS 2021, with inner products in the place of distances).
        """
        scores = self.scores[:, :probes]
        is_far = scores < scores[:, :1] - np.float32(margin)
        most = int((~is_far).sum(axis=1).max(initial=1))
        numbers = np.where(is_far, -1, self.numbers[:, :probes])
        return NearLists(scores[:, :most], numbers[:, :most])


class IvfFile:
    """Inverted lists of one segment. Immutable; safe to call from several threads."""

    def __init__(
        self, index: faiss.IndexIVFRaBitQ, centroids: faiss.IndexScalarQuantizer | None = None
    ) -> None:
        self._index = index
        self._centroids = centroids  # Kept, since the index only points to it.
        self._codes = _codes_of(index.quantizer.reconstruct_n(0, index.nlist))
        self._glance = faiss.IndexRefine(self._codes, index.quantizer)
        self._glance.k_factor = _CODES_PER_GLANCE
        self._lock = threading.Lock()
        self._lists_of_rows: NDArray[np.int32] | None = None

    @classmethod
    def build(cls, flat: FaissFile) -> IvfFile:
        """Arrange the vectors of a file, which are of unit length.

        Leaves one core to queries, where there is more than one.
        """
        rows, dim = flat.vectors().shape
        with faiss_threads(max(1, cores() - 1)):
            sample = flat.take(training_rows(rows))
            trained = _split_large_lists(_trained(sample, lists_for(rows)), sample)
            lists = len(trained)
            centroids = faiss.IndexFlatIP(dim)
            centroids.add(trained)
            index = faiss.IndexIVFRaBitQ(
                centroids, dim, lists, faiss.METRIC_INNER_PRODUCT, True, _BITS
            )
            index.train(sample)  # Of the codes: the centroids are there.
            del sample  # Of a million rows it takes half a gigabyte.
            for _, block in flat.blocks():
                index.add(block)
        # Each query is compared with all centroids, which memory gives no faster than this.
        halves = faiss.IndexScalarQuantizer(
            dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
        halves.add(trained)
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

    def glance(self, queries: NDArray[np.float32]) -> NearLists:
        """Return a few lists that seem nearest, in a fifth of the time of ``nearest``.

        The nearest of all is among them if it is much nearer than the others. The scores are right.
        """
        with threads_for(len(queries)):
            return NearLists(*self._glance.search(queries, min(_GLANCE, self.lists)))

    def nearest(self, queries: NDArray[np.float32], count: int) -> NearLists:
        """Return the nearest ``count`` lists of each query, or all; ``queries``: shape (n, dim)."""
        with threads_for(len(queries)):
            return NearLists(*self._index.quantizer.search(queries, min(count, self.lists)))

    def candidates(
        self,
        queries: NDArray[np.float32],
        count: int,
        *,
        lists: NearLists,
        among: RowSet | None = None,
    ) -> NDArray[np.int64]:
        """Return the rows that seem nearest: int64, shape (n, count), the best first.

        ``queries`` has shape (n, dim); ``lists`` are those to be read for each. With ``among``
        only its rows are looked at. Where fewer are found, the rest is -1.
        """
        parameters = faiss.IVFRaBitQSearchParameters()
        parameters.nprobe = lists.numbers.shape[1]
        parameters.qb = _QUERY_BITS
        if among is not None:
            parameters.sel = among.selector
        # Faiss looks at their memory.
        queries = np.ascontiguousarray(queries)
        numbers = np.ascontiguousarray(lists.numbers)
        list_scores = np.ascontiguousarray(lists.scores)
        scores = np.empty((len(queries), count), dtype=np.float32)
        rows = np.empty((len(queries), count), dtype=np.int64)
        # As ``search_preassigned``, which takes no parameters from Python.
        with threads_for(len(queries)):
            self._index.search_preassigned_c(  # type: ignore[attr-defined]
                len(queries),
                faiss.swig_ptr(queries),
                count,
                faiss.swig_ptr(numbers),
                faiss.swig_ptr(list_scores),
                faiss.swig_ptr(scores),
                faiss.swig_ptr(rows),
                False,
                parameters,
            )
        return rows

    def lists_of(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the list that each of these rows is in, of the same shape."""
        return self._list_of_each_row()[rows]

    def rows_in(self, lists: NearLists) -> NDArray[np.int64]:
        """Return how many rows the lists of each query hold: shape (n,)."""
        sizes = np.bincount(self._list_of_each_row(), minlength=self.lists)
        counts: NDArray[np.int64] = np.where(lists.numbers >= 0, sizes[lists.numbers], 0).sum(
            axis=1
        )
        return counts

    def listed(self, bits: NDArray[np.uint8], rows: NDArray[np.int64]) -> ListedRows:
        """Prepare some rows for searches among them: a bit for each row, and their numbers."""
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

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        """Take a bit for each row, the first rows in the lowest bits."""
        self._bits = bits  # Faiss looks at its memory.
        self.selector = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]

    @classmethod
    def all_but(cls, gone: NDArray[np.int64], *, rows: int) -> RowSet:
        """Take all of so many rows but those in ``gone``."""
        marked = np.ones(rows, dtype=bool)
        marked[gone] = False
        return cls(np.packbits(marked, bitorder="little"))


class ListedRows(RowSet):
    """Some rows of a segment, and how many of them each list has. Immutable."""

    def __init__(
        self, bits: NDArray[np.uint8], counts: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> None:
        """Take a bit for each row, and of each list how many it has, and how many rows in all."""
        super().__init__(bits)
        self._counts = counts
        self._sizes = sizes
        self._share = counts.sum() / max(1, sizes.sum())

    def have_their_share(self, lists: NearLists) -> NDArray[np.bool_]:
        """Say for each query whether its lists hold about as many of these rows as others do."""
        is_read = lists.numbers >= 0
        held = np.where(is_read, self._counts[lists.numbers], 0).sum(axis=1)
        sizes = np.where(is_read, self._sizes[lists.numbers], 0).sum(axis=1)
        enough: NDArray[np.bool_] = held >= _FAIR_SHARE * self._share * sizes
        return enough

    def lists_to_read(self, lists: NearLists, depth: int) -> NearLists:
        """Return for each query which of all ``lists`` to read, to search among these rows.

        Lists are read from the nearest on, those without such rows left out, until they hold as
        many of them as the ``depth`` nearest lists hold of all rows. Where these nearest lists
        hold few of them, what is nearest to the query is not allowed, and all others are about
        equally far: then all lists that hold any are read.
        """
        chosen = [self._places_to_read(order, depth) for order in lists.numbers]
        most = max(1, max(len(places) for places in chosen))
        numbers = np.full((len(chosen), most), -1, dtype=np.int64)
        scores = np.zeros((len(chosen), most), dtype=np.float32)
        for i, places in enumerate(chosen):
            numbers[i, : len(places)] = lists.numbers[i, places]
            scores[i, : len(places)] = lists.scores[i, places]
        return NearLists(scores, numbers)

    def _places_to_read(self, order: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
        """Return places in ``order``, which has all lists, the nearest to a query first."""
        counts = self._counts[order]
        filled = np.flatnonzero(counts)
        enough = self._sizes[order[:depth]].sum()
        if counts[:depth].sum() < _FAIR_SHARE * self._share * enough:
            return filled
        last = int(np.searchsorted(np.cumsum(counts[filled]), enough))
        return filled[: last + 1]


def lists_for(rows: int) -> int:
    """Return how many lists so many rows are divided into at first: some are read for a query."""
    return max(1, round(4 * math.sqrt(rows)))


def _codes_of(centroids: NDArray[np.float32]) -> faiss.IndexRaBitQFastScan:
    """Return centroids with one bit a dimension, which a query is compared with at a glance."""
    codes = faiss.IndexRaBitQFastScan(centroids.shape[1], faiss.METRIC_INNER_PRODUCT)
    codes.train(centroids)
    codes.add(centroids)
    return codes


def training_rows(rows: int) -> NDArray[np.int64]:
    """Return the rows of which the lists of so many rows are made, ascending."""
    chosen = np.random.default_rng(0).permutation(rows)
    return np.sort(chosen[: lists_for(rows) * _TRAINING_ROWS_PER_LIST])


def _trained(sample: NDArray[np.float32], lists: int) -> NDArray[np.float32]:
    """Return the centroids of some vectors: float32, shape (lists, dim)."""
    means = faiss.Kmeans(
        sample.shape[1],
        min(lists, len(sample)),
        spherical=True,
        niter=_TRAINING_ROUNDS,
        max_points_per_centroid=len(sample),
        min_points_per_centroid=1,  # Only of a warning.
    )
    means.train(sample)
    return np.asarray(means.centroids, dtype=np.float32)


def _split_large_lists(
    centroids: NDArray[np.float32], sample: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Divide lists that would hold far more than their share.

    Where there are more clusters than lists, those that got no list of their own gather in a few,
    which are large, near to many queries, and hold little that any of them looks for.
    """
    quantizer = faiss.IndexFlatIP(sample.shape[1])
    quantizer.add(centroids)
    lists = quantizer.search(sample, 1)[1][:, 0]
    order = np.argsort(lists, kind="stable")
    sizes = np.bincount(lists, minlength=len(centroids))
    share = len(sample) / len(centroids)
    pieces = [centroids[sizes <= _LARGEST_LIST * share]]
    ends = np.cumsum(sizes)
    for number in np.flatnonzero(sizes > _LARGEST_LIST * share):
        some = sample[order[ends[number] - sizes[number] : ends[number]]]
        pieces.append(_trained(some, math.ceil(len(some) / (_PIECE_OF_LIST * share))))
    return np.concatenate(pieces)
